"""Averages of the weights that a loop keeps, and whether they follow once a step.

The reference has none, so an average is judged by a rule: after each step it moves by one share of its distance to the
weights, which is one minus the decay. What breaks that: an average that moves although no step was made, or never, or
by another share than the plan's; one that leaves a parameter out; and one that is overwritten with the weights, as by a
swap that is not undone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn

from gradparity.auditing.watching.weight_averages import share_of_way
from gradparity.check.updates_and_averages.found_averages import shadows_on_the_stack
from gradparity.faults.stress_scenario import Cast
from gradparity.trace.events import Event, Record

_ENOUGH = 2
"""Moves of a kind that are no accident."""
_ALIKE = 0.02
"""Relative difference of two shares that is rounding."""
_FAR = 1e-3
"""Distance of an average from its parameter, relative to the parameter, from which on it has to move."""


@dataclass(frozen=True)
class Average:
    """An average of the weights, as it was seen over a whole loop."""

    name: str
    """The variable that holds it."""
    decay: float | None = None
    """Its decay; ``None`` if that changes."""
    wrong: str = ""
    """A predicate on the loop; empty if the average follows as it should."""


@dataclass
class OwnAverage:
    """Tensors of the loop's own that follow the parameters, as they were seen last."""

    seen: dict[str, Tensor]
    shares: list[float] = field(default_factory=list)
    """The share of its distance by which it moved towards the weights, each time."""
    without_step: int = 0
    """The moves for which no step was made or skipped since the time before, but a backward was."""
    overwritten: int = 0
    """The number of times that it became the parameter, after it had followed."""
    behind: dict[str, int] = field(default_factory=dict)
    """The number of moves at which the average of a parameter stayed where it was, far from it."""
    moved: set[str] = field(default_factory=set)
    steps: int = 0
    backwards: int = 0

    def look(self, now: Mapping[str, Tensor], parameters: Mapping[str, Tensor], main: str) -> None:
        """Compare with what was seen last.

        Args:
            now: the averages, by the name of their parameter.
            parameters: the parameters of the model.
            main: the parameter whose average shows when all of them move.
        """
        before = self.seen
        if any(now[name].shape != old.shape for name, old in before.items() if name in now):
            return
        if main not in now or torch.equal(now[main], before[main]):
            return
        self.seen = {name: tensor.detach().clone() for name, tensor in now.items()}
        if torch.equal(now[main], parameters[main]):
            self.overwritten += len(self.shares) >= _ENOUGH
        elif (share := share_of_way(before[main], now[main], parameters[main])) is not None:
            self.without_step += bool(self.shares and not self.steps and self.backwards)
            self.shares.append(share)
            for name in before.keys() & now.keys() & parameters.keys():
                if not torch.equal(before[name], now[name]):
                    self.moved.add(name)
                elif _is_far(before[name], parameters[name]):
                    self.behind[name] = self.behind.get(name, 0) + 1
        self.steps = self.backwards = 0

    def decay(self) -> float | None:
        """Return its decay; ``None`` if that changes."""
        middle = median(self.shares)
        return 1 - middle if all(abs(share / middle - 1) < _ALIKE for share in self.shares) else None

    def wrong(self, name: str, decay: float | None) -> str:
        """Return a predicate on what is wrong with it, under its name; empty if it follows as it should.

        Args:
            name: the variable that holds it.
            decay: the one that the loop means, if it says so.
        """
        if self.without_step >= _ENOUGH:
            return (
                f"moves its average {name} {self.without_step} times without a step in between, as after each "
                "microbatch; move it once after each step"
            )
        if self.overwritten:
            return (
                f"overwrites its average {name} with the weights; if they are swapped for a validation, swap both back"
            )
        own = self.decay() if len(self.shares) >= _ENOUGH else None
        if own is not None and decay is not None and abs((1 - own) / (1 - decay) - 1) > _ALIKE:
            return (
                f"moves its average {name} by {1 - own:.3g} of its distance to the weights after a step; with "
                f"plan.ema_decay of {decay:g} it is {1 - decay:.3g}"
            )
        left = [key for key, times in self.behind.items() if times >= _ENOUGH and key not in self.moved]
        return f"never moves its average {name} of {left[0]}; average all parameters" if left else ""


def _is_far(average: Tensor, parameter: Tensor) -> bool:
    return float((average - parameter).norm()) > _FAR * float(parameter.norm())


@dataclass
class OwnAverages:
    """The averages in what the user's functions hold, by name."""

    model: nn.Module | None = None
    given: Sequence[str] = ()
    """The names of those that the loop was given."""
    found: dict[str, OwnAverage] = field(default_factory=dict)
    steps: int = 0
    """The number of steps of the optimizer that the loop was given: those of others are not seen."""

    def of(self, cast: Cast) -> Cast:
        """Return the cast whose model the averages follow."""
        self.model = cast.model
        return cast

    @torch.no_grad()
    def look(self, records: Sequence[Record], _: object) -> bool:
        """Look at all averages after an observation. The result is always true, so that the loop goes on."""
        if self.model is None:
            return True
        parameters = {name: p.detach() for name, p in self.model.named_parameters()}
        main = max(parameters, key=lambda name: parameters[name].numel())
        for variable, tensors in shadows_on_the_stack(self.model, parameters, main):
            average = self.found.setdefault(
                variable, OwnAverage({name: tensor.detach().clone() for name, tensor in tensors.items()})
            )
            average.look(tensors, parameters, main)
        event = records[-1].event
        self.steps += event in (Event.STEP, Event.SKIP)
        for average in self.found.values():
            average.steps += event in (Event.STEP, Event.SKIP)
            average.backwards += event == Event.ACCUMULATED
        return True

    def judged(self, decay: float | None) -> tuple[Average, ...]:
        """Return all averages that have moved, and those that were given.

        Args:
            decay: the one that the loop means, if it says so.
        """
        moving = {name: one for name, one in self.found.items() if one.shares}
        judged = [
            Average(name, one.decay(), one.wrong(name, decay) if self.steps else "") for name, one in moving.items()
        ]
        idle = [name for name in self.given if name not in moving] if self.steps else []
        never = "never moves its average {}; move it once after each step"
        return (*judged, *(Average(name, wrong=never.format(name)) for name in idle))
