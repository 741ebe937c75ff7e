"""The same step on all ranks, side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradparity.auditing.events import GradientLook, LoopEvent, StepMade
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.step_windows import StepWindow, WindowBackward, windows
from gradparity.trace.fingerprint import Fingerprint

_ROUNDING = {"float16": 1e-2, "bfloat16": 1e-2}
"""Relative difference of two norms that may be rounding, where ranks add up in different orders."""


@dataclass(frozen=True)
class OneStep:
    """One step of one optimizer on all ranks."""

    windows: tuple[StepWindow, ...]
    """For each rank, the events after the step before, up to and with this one."""
    ends: tuple[LoopEvent, ...]
    made: tuple[StepMade, ...]

    @property
    def step(self) -> int:
        """Return its number, from 0."""
        return self.windows[0].step

    @property
    def microbatches(self) -> list[tuple[WindowBackward, ...]]:
        """Return the backwards of all ranks side by side; none if ranks have different numbers of them."""
        backwards = [window.backwards for window in self.windows]
        return list(zip(*backwards, strict=True)) if len({len(own) for own in backwards}) == 1 else []

    @property
    def looks(self) -> list[GradientLook]:
        """Return the gradients that the step reads, rank by rank."""
        return [end.before for end in self.ends]


@dataclass(frozen=True)
class SameOptimizer:
    """One optimizer as all ranks have it."""

    stories: tuple[Story, ...]
    steps: tuple[OneStep, ...]
    """The steps that all ranks made, without those that one has skipped."""

    @property
    def whole(self) -> bool:
        """Return whether each rank holds all of each parameter."""
        return not any(any(story.sharded) for story in self.stories)

    @property
    def replicated(self) -> frozenset[int]:
        """Return the parameters, by position, whose gradients DDP promises to be the same on all ranks."""
        return frozenset(i for story in self.stories for i, promised in enumerate(story.replicated) if promised)


def same_optimizers(all_facts: Sequence[RunFacts]) -> Iterator[SameOptimizer]:
    """Yield each optimizer that all ranks have, with the same parameters."""
    for own in all_facts[0].stories:
        stories = [next((s for s in facts.stories if s.number == own.number), None) for facts in all_facts]
        alike = [s for s in stories if s is not None and s.name == own.name and _same_names(s, own)]
        if len(alike) == len(all_facts):
            yield SameOptimizer(tuple(alike), tuple(_steps(alike)))


def _same_names(one: Story, other: Story) -> bool:
    """Return whether two stories have the same parameters; without a step their names may be unknown."""
    return one.names == other.names or not (one.steps and other.steps)


def _steps(stories: Sequence[Story]) -> Iterator[OneStep]:
    for together in zip(*map(windows, stories), strict=False):
        ends = [window.end for window in together if window.end is not None]
        made = [window.made for window in together if window.made is not None and not window.made.skipped]
        if len(made) == len(stories):
            yield OneStep(together, tuple(ends), tuple(made))


def identical(looks: Sequence[GradientLook]) -> bool:
    """Return whether all ranks have the same bits, and a gradient that is not zero among them."""
    some = any(g is not None and g.norm != 0 for g in looks[0])
    return some and all(_digests(look) == _digests(looks[0]) for look in looks)


def different(looks: Sequence[GradientLook]) -> frozenset[int]:
    """Return the gradients, by position, that differ between ranks by more than rounding."""
    return frozenset(i for i, each in enumerate(zip(*looks, strict=False)) if _differ(each))


def _differ(gradients: Sequence[Fingerprint | None]) -> bool:
    present = [g for g in gradients if g is not None]
    if len(present) < len(gradients):
        return any(g.norm != 0 for g in present)
    norms = [abs(g.norm) for g in present]
    rounding = _ROUNDING.get(present[0].dtype, 1e-4)
    return len({g.digest for g in present}) > 1 and max(norms) - min(norms) > rounding * max(norms)


def _digests(look: GradientLook) -> list[str | None]:
    return [None if g is None else g.digest for g in look]
