"""Averages of the weights that a loop keeps itself, and whether they follow once a step.

The reference has none, so their values are not compared. What can be seen without it: an average that moves although no
step was made, and one that is overwritten with the weights, as by a swap that is not undone.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradparity.auditing.watching.user_lines import of_the_user
from gradparity.auditing.watching.weight_averages import moves_towards
from gradparity.check import user_loop
from gradparity.faults.stress_scenario import Cast
from gradparity.trace.events import Event, Record

_ENOUGH = 2
"""Moves of a kind that are no accident."""
_PLAIN = (nn.Module, Optimizer, torch.amp.GradScaler, torch.optim.lr_scheduler.LRScheduler, type, FrameType)


@dataclass
class OwnAverage:
    """A tensor of the loop's own that follows a parameter, as it was seen last."""

    seen: Tensor
    followed: int = 0
    """The number of times that it moved towards the parameter."""
    without_step: int = 0
    """Those for which no step was made or skipped since the time before, but a backward was."""
    overwritten: int = 0
    """The number of times that it became the parameter, after it had followed."""
    steps: int = 0
    backwards: int = 0

    def look(self, now: Tensor, parameter: Tensor) -> None:
        """Compare with what was seen last."""
        if now.shape != self.seen.shape or torch.equal(now, self.seen):
            return
        before, self.seen = self.seen, now.detach().clone()
        if torch.equal(now, parameter):
            self.overwritten += self.followed >= _ENOUGH
        elif moves_towards(before, self.seen, parameter.detach()):
            self.without_step += bool(self.followed and not self.steps and self.backwards)
            self.followed += 1
        self.steps = self.backwards = 0


@dataclass
class OwnAverages:
    """The averages in variables of the user's functions, by name."""

    model: nn.Module | None = None
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
        name, parameter = max(self.model.named_parameters(), key=lambda named: named[1].numel())
        for variable, tensor in _shadows_on_the_stack(self.model, name, parameter):
            average = self.found.setdefault(variable, OwnAverage(tensor.detach().clone()))
            average.look(tensor, parameter)
        event = records[-1].event
        self.steps += event in (Event.STEP, Event.SKIP)
        for average in self.found.values():
            average.steps += event in (Event.STEP, Event.SKIP)
            average.backwards += event == Event.ACCUMULATED
        return True

    def wrong(self) -> str:
        """Return a predicate on the first average that does not follow as it should; empty if all do."""
        for name, average in self.found.items() if self.steps else ():
            if average.without_step >= _ENOUGH:
                return (
                    f"moves its average {name} {average.without_step} times without a step in between, as after each "
                    "microbatch; move it once after each step"
                )
            if average.overwritten:
                return (
                    f"overwrites its average {name} with the weights; if they are swapped for a validation, swap both "
                    "back"
                )
        return ""

    def names(self) -> list[str]:
        """Return the names of all averages."""
        return [name for name, average in self.found.items() if average.followed]


def _shadows_on_the_stack(model: nn.Module, name: str, parameter: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield, by variable, each tensor that stands for ``parameter`` in something that the user's functions hold."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != user_loop.__file__:
        if of_the_user(frame.f_code.co_filename):
            for variable, value in list(frame.f_locals.items()):
                yield from _shadows_in(variable, value, model, name, parameter, deeper=True)
        frame = frame.f_back


def _shadows_in(
    variable: str, value: object, model: nn.Module, name: str, parameter: Tensor, deeper: bool
) -> Iterator[tuple[str, Tensor]]:
    tensors: Mapping[object, object] = {}
    if isinstance(value, nn.Module) and value is not model:
        tensors = dict(value.named_parameters())
    elif isinstance(value, dict):  # another mapping may take no such keys, as os.environ does
        tensors = value
    elif isinstance(value, list | tuple) and len(value) == len(list(model.parameters())):
        tensors = dict(zip(dict(model.named_parameters()), value, strict=True))
    if tensors:
        found = next((tensors[key] for key in (name, f"module.{name}") if key in tensors), None)
        if not isinstance(found, Tensor) or found.shape != parameter.shape or found.layout != torch.strided:
            return
        if found.data_ptr() != parameter.data_ptr():
            yield variable, found
    elif deeper and not isinstance(value, _PLAIN) and hasattr(value, "__dict__"):
        for key, inner in list(vars(value).items()):
            yield from _shadows_in(f"{variable}.{key}", inner, model, name, parameter, deeper=False)
