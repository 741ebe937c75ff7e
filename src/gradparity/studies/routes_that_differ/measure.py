"""Measurements of a variant: its first difference and its size, the growth after it, and each prediction's result."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from gradparity.parity.difference_kinds import Kind
from gradparity.parity.figures import Figures
from gradparity.parity.lockstep import LockstepRun, lockstep
from gradparity.parity.mismatches import Mismatch, figures_of
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.studies.routes_that_differ.catalogue import Prediction, Variant
from gradparity.studies.routes_that_differ.loops import REFERENCE_LOOP, VariantLoop
from gradparity.studies.tasks import Task
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import Config
from gradparity.training import Window


@dataclass(frozen=True)
class FirstDifference:
    """The first difference between two loops."""

    place: Place
    mismatch: Mismatch
    figures: Figures | None
    """Figures over all tensors of that part whose bits differ there; ``None`` for any other kind of difference."""


@dataclass(frozen=True)
class MeasuredPrediction:
    """A prediction with its measurement."""

    prediction: Prediction
    predicted: Place | None
    """The place where the variant should diverge from the loop it is compared with; ``None``: nowhere."""
    measured: Place | None
    """The place where it does; ``None``: nowhere."""

    @property
    def holds(self) -> bool:
        """Return whether the two loops diverge exactly where predicted."""
        return self.predicted == self.measured


@dataclass(frozen=True)
class VariantOutcome:
    """All measurements of a variant."""

    variant: Variant
    first: FirstDifference | None
    """The first difference from the reference."""
    first_in_fp64: FirstDifference | None
    """The same with both loops in fp64. A rounding difference is 2**29 times as small there."""
    growth: list[Figures]
    """The difference from the reference over all parameters, after each step."""
    kept: list[MeasuredPrediction]


def variant_outcome(variant: Variant, steps: int, tick: Callable[[], None] = lambda: None) -> VariantOutcome:
    """Train ``variant`` for ``steps`` steps; compare it with the reference and with each loop it is predicted to match.

    Args:
        variant: the variant to measure.
        steps: optimizer steps of each training.
        tick: called after each step of the training whose growth is measured.
    """
    task, config = variant.task(), replace(variant.config, steps=steps)
    theirs = config, variant.loop
    first = first_difference(task, (config, REFERENCE_LOOP), theirs)
    growth = []
    for figures in parameters_apart(task, (config, REFERENCE_LOOP), theirs):
        growth.append(figures)
        tick()
    kept = []
    for prediction in variant.predictions:
        found = first
        if prediction != Prediction(REFERENCE_LOOP, prediction.until):  # otherwise already compared, above
            ours = replace(prediction.config or config, steps=steps), prediction.like
            found = first_difference(task, ours, theirs, prediction.part)
        kept.append(MeasuredPrediction(prediction, prediction.until(config, task), found.place if found else None))
    return VariantOutcome(variant, first, _first_in_fp64(variant, task, config) if first else None, growth, kept)


def _first_in_fp64(variant: Variant, task: Task, config: Config) -> FirstDifference | None:
    """Return the first difference with both loops in fp64; ``None`` unless the variant's own precision is fp32."""
    if config.precision != "fp32":
        return None
    double = replace(config, precision="fp64")
    return first_difference(task, (double, REFERENCE_LOOP), (double, variant.loop))


def first_difference(
    task: Task, ours: tuple[Config, VariantLoop], theirs: tuple[Config, VariantLoop], part: Part | None = None
) -> FirstDifference | None:
    """Return the first difference between two loops, in ``part`` or, without one, in any part; ``None`` if none."""
    for found in lockstep(variant_lane(task, *ours), variant_lane(task, *theirs), build.windows(theirs[0], task)):
        for mismatch in found.mismatches:
            if part in (None, mismatch.part):
                figures = found.figures.get(mismatch.part) if mismatch.kind == Kind.BITS else None
                return FirstDifference(found.place, mismatch, figures)
    return None


def parameters_apart(
    task: Task, ours: tuple[Config, VariantLoop], theirs: tuple[Config, VariantLoop]
) -> Iterator[Figures]:
    """Yield the difference between the parameters of two loops after each step."""
    lanes = variant_lane(task, *ours), variant_lane(task, *theirs)
    for window in build.windows(theirs[0], task):
        for each in lanes:
            advance(each, window)
        yield figures_of(zip(lanes[0].run.parameters, lanes[1].run.parameters, strict=True))


def advance(lane: LockstepRun, window: Window[Any]) -> None:
    """Run one step without stopping at its phases."""
    with lane.random.active():
        for _ in lane.step(lane.run, window):
            pass


def variant_lane(task: Task, config: Config, loop: VariantLoop) -> LockstepRun:
    """Return a lane that trains ``task`` by ``loop``."""
    made = build.lane(config, task, "backward")
    return replace(made, step=loop.step, run=replace(made.run, route=loop.route))
