"""A comparison of two routes on every rank, and of all ranks with rank 0."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gradparity.parity.figures import Figures
from gradparity.parity.lockstep import Comparison, LockstepRun, lockstep
from gradparity.parity.metrics import Difference
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.parity.verdict import verdict_of
from gradparity.training import Phase, Window

T = TypeVar("T")


@dataclass(frozen=True)
class FirstDifference:
    """The first difference between two routes on a rank."""

    place: Place
    part: Part
    name: str


@dataclass(frozen=True)
class RankDrift:
    """The comparison of the candidate's ranks after one of its steps. It has the same value on every rank."""

    gradients: Figures
    """The difference of the other ranks from rank 0, in the gradients that the optimizer read."""
    parameters: Figures
    """The same for the parameters after the step."""
    differing: tuple[int, ...]
    """The ranks whose parameters differ from those of rank 0."""
    scales: tuple[float, ...]
    """The loss scale of each rank."""


@dataclass(frozen=True)
class RankOutcome:
    """The result of the comparison on one rank."""

    rank: int
    steps: int
    numbers: int
    """The count of numbers compared; a number is counted each time it is compared."""
    first: FirstDifference | None
    """The first difference between the routes on this rank."""
    explanation: str
    routes: Figures
    """The difference of the candidate's final parameters from the reference's, over all ranks together."""
    across: list[RankDrift]

    @property
    def parity(self) -> bool:
        """Return whether the routes agree on this rank, and all ranks of the candidate have the same parameters."""
        return self.steps > 0 and self.first is None and not any(step.differing for step in self.across)


def compare_on_every_rank(
    reference: LockstepRun, candidate: LockstepRun, windows: Iterable[Window[Any]]
) -> RankOutcome:
    """Train both lanes in lockstep on this rank's windows. Collective: every rank needs the same number of windows."""
    across = list[RankDrift]()

    def look_across(found: Comparison) -> None:
        if found.place.in_a_step and found.place.phase == Phase.STEPPED:
            across.append(_across(candidate))

    verdict = verdict_of(lockstep(reference, candidate, windows), look_across)
    first = None
    if verdict.first:
        at, what = verdict.first
        first = FirstDifference(at.place, what.part, what.name)
    routes = Difference().to(next(reference.run.model.parameters()).device)
    for ours, theirs in zip(reference.run.model.parameters(), candidate.run.model.parameters(), strict=True):
        routes.update(ours, theirs)
    return RankOutcome(
        rank=dist.get_rank(),
        steps=verdict.steps,
        numbers=verdict.numbers,
        first=first,
        explanation=verdict.explanation,
        routes=routes.compute(),  # over all ranks: torchmetrics adds up their figures
        across=across,
    )


def _across(lane: LockstepRun) -> RankDrift:
    parameters = list(lane.run.model.parameters())
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    of_gradients, _ = against_rank_0(gradients)
    of_parameters, differing = against_rank_0(parameters)
    return RankDrift(of_gradients, of_parameters, differing, gathered(lane.run.scaler.get_scale()))


def against_rank_0(tensors: Sequence[Tensor]) -> tuple[Figures, tuple[int, ...]]:
    """Return the difference of the other ranks' tensors from rank 0's, and the ranks that differ. Collective."""
    metric = Difference().to(tensors[0].device)
    for tensor in tensors:
        theirs = tensor.detach().clone(memory_format=torch.contiguous_format)
        dist.broadcast(theirs, src=0)
        held = slice(None) if dist.get_rank() else slice(0)  # rank 0 is the reference and adds nothing
        metric.update(theirs.flatten()[held], tensor.detach().flatten()[held])
    differing = gathered(int(metric.differing))  # before compute() adds up the ranks' figures
    return metric.compute(), tuple(rank for rank, count in enumerate(differing) if count)


def gathered(value: T) -> tuple[T, ...]:
    """Return the ``value`` of every rank, in rank order. Collective."""
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return tuple(values)
