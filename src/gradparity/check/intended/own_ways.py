"""Things that a loop may do by intent and no reference does: a loss of its own, and weights that it writes itself.

A penalty on the weights, SAM, Lookahead and the clipped weights of a WGAN are such things. Only their author can judge
them, so a loop that differs there is not called wrong, unless an audit finds it wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from gradparity.check.lookup.fault_lookup import Finding
from gradparity.check.running.observe import Observation, UserLoop, observe
from gradparity.faults.stress_scenario import Cast
from gradparity.parity.batch import Batch
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record
from gradparity.trace.snapshot import Snapshot
from gradparity.training import Phase


@dataclass(frozen=True)
class OwnWays:
    """Predicates on what a loop does in a way of its own; empty for what it does not do."""

    loss: str = ""
    weights: str = ""
    step: int = 0
    """The first step for which, or in which, it writes weights."""
    hooks: bool = False
    """True if it has hooks on parameters, which change gradients in the backward."""

    def why_unlike(self, finding: Finding) -> str:
        """Return the predicate that explains the first difference from the reference; empty if none does."""
        first = finding.first
        if first is None or finding.matched:
            return ""
        if self.loss and first.place.phase == Phase.FORWARD and first.mismatches[0].part == Part.LOSS:
            return self.loss
        step = first.place.step
        return self.weights if step is not None and self.step <= step else ""


@dataclass
class WeightsWritten:
    """The weights between the steps of the optimizer that the loop was given, which nothing else should write."""

    step: int | None = None
    """The first step for which, or in which, something else has written them."""
    hooks: bool = False
    """True if there were hooks on parameters at a backward."""
    within: bool = False
    """True if it was between a forward and the step."""
    _model: nn.Module | None = None
    _seen: list[Tensor] = field(default_factory=list)

    def of(self, cast: Cast) -> Cast:
        """Return the cast whose weights are watched."""
        self._model = cast.model
        return cast

    @torch.no_grad()
    def look(self, records: Sequence[Record], _: object) -> bool:
        """Look at the weights after an observation. The result is always true, so that the loop goes on."""
        record = records[-1]
        if self._model is None or record.event in (Event.READY, Event.END):
            return True  # a step with a closure tells of what it read when it is over
        if record.event == Event.ACCUMULATED:
            self.hooks = self.hooks or any(p._backward_hooks for p in self._model.parameters())
        if self.step is not None:
            return True
        now = [p.detach().clone() for p in self._model.parameters()]
        stepped = record.event in (Event.STEP, Event.SKIP)
        if self._seen and not stepped and not _same(self._seen, now):
            self.step, self.within = record.step, record.event != Event.FORWARD or bool(record.microbatch)
        self._seen = now
        return True

    def found(self, by_the_given_optimizer: bool) -> tuple[str, int, bool]:
        """Return a predicate on the loop, the first such step, and whether it has hooks.

        The predicate is empty if other optimizers write the weights.
        """
        if self.step is None or not by_the_given_optimizer:
            return "", 0, self.hooks
        return f"writes the weights itself {'within a step' if self.within else 'between steps'}", self.step, self.hooks


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(
        a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(some, others, strict=True)
    )


def own_loss(loop: UserLoop, build: Callable[[str], Cast], precision: str) -> str:
    """Return a predicate on a loop whose loss is not a multiple of the given one; empty for any other loop.

    The first forward runs twice, the second time with twice the given loss. That doubles the loss which the loop
    differentiates, bit for bit, unless it adds a term, or computes another loss.
    """
    once, twice = (_first_losses(loop, build, precision, factor) for factor in (1, 2))
    if not once or len(once) != len(twice) or all(torch.equal(2 * a, b) for a, b in zip(once, twice, strict=True)):
        return ""
    if all(torch.equal(a, b) for a, b in zip(once, twice, strict=True)):
        return "differentiates a loss of its own, not the one that it is given"
    return "adds a term of its own to the loss"


def _first_losses(loop: UserLoop, build: Callable[[str], Cast], precision: str, factor: int) -> list[Tensor]:
    """Return what the loop differentiates first, if the given loss is multiplied by ``factor``."""
    found: list[Tensor] = []

    def multiplied(precision: str) -> Cast:
        cast = build(precision)

        def loss(model: nn.Module, batch: Batch) -> Tensor:
            return cast.loss(model, batch) * factor

        return replace(cast, loss=loss)

    class Losses:
        def write(self, record: Record, seen: Snapshot) -> None:
            if record.event == Event.FORWARD and not found:
                found.extend(v.detach().clone() for v in seen[Part.LOSS].values() if isinstance(v, Tensor))

    def not_yet(_: Sequence[Record], __: Sequence[Observation]) -> bool:
        return not found

    observe(loop, multiplied, precision, not_yet, writer=Losses())
    return found
