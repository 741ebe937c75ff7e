"""What a variant does, measured: where it first differs, by how much, how that grows, and whether it was foretold."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from gradparity.parity.compare import Kind, Mismatch, figures_of
from gradparity.parity.lockstep import Comparison, Lane, lockstep
from gradparity.parity.metrics import Figures
from gradparity.parity.state import Part
from gradparity.studies.tasks import Task
from gradparity.studies.two_ways import build
from gradparity.studies.two_ways.config import Config
from gradparity.studies.variants.catalogue import Prediction, Variant
from gradparity.studies.variants.loops import REFERENCE, Loop
from gradparity.studies.variants.places import Place
from gradparity.training import Window


@dataclass(frozen=True)
class First:
    """A first difference."""

    place: Place
    mismatch: Mismatch
    figures: Figures | None
    """Over all tensors of that part which differ there in bits; ``None`` if it is no difference in bits."""


@dataclass(frozen=True)
class Kept:
    """A prediction beside its measurement."""

    prediction: Prediction
    predicted: Place | None
    """Where the variant was to part from what it is like; ``None``: nowhere."""
    measured: Place | None

    @property
    def holds(self) -> bool:
        """Whether they part exactly where they were to."""
        return self.predicted == self.measured


@dataclass(frozen=True)
class Outcome:
    """All that was measured of a variant."""

    variant: Variant
    first: First | None
    """Against the reference."""
    first_in_fp64: First | None
    """The same, both in fp64: where it is rounding, it is 2**29 times as small there."""
    growth: list[Figures]
    """After each step, over all parameters, against the reference's."""
    kept: list[Kept]


def outcome(variant: Variant, steps: int, tick: Callable[[], None] = lambda: None) -> Outcome:
    """Train ``variant`` for ``steps`` steps against the reference and against what it is predicted to be like.

    Args:
        variant: which.
        steps: optimizer steps of each training.
        tick: called after each step of the training whose growth is measured.
    """
    task, config = variant.task(), replace(variant.config, steps=steps)
    theirs = config, variant.loop
    first = first_difference(task, (config, REFERENCE), theirs)
    growth = []
    for figures in parameters_apart(task, (config, REFERENCE), theirs):
        growth.append(figures)
        tick()
    kept = []
    for prediction in variant.predictions:
        found = first
        if prediction != Prediction(REFERENCE, prediction.until):  # which was held against the variant above
            ours = replace(prediction.config or config, steps=steps), prediction.like
            found = first_difference(task, ours, theirs, prediction.part)
        kept.append(Kept(prediction, prediction.until(config, task), found.place if found else None))
    return Outcome(variant, first, in_fp64(variant, task, config) if first else None, growth, kept)


def in_fp64(variant: Variant, task: Task, config: Config) -> First | None:
    """The first difference in fp64, of a variant that differs in fp32; one in half precision has no such twin."""
    if config.precision != "fp32":
        return None
    double = replace(config, precision="fp64")
    return first_difference(task, (double, REFERENCE), (double, variant.loop))


def first_difference(
    task: Task, ours: tuple[Config, Loop], theirs: tuple[Config, Loop], part: Part | None = None
) -> First | None:
    """Where two loops first differ, in ``part`` or in anything, if they do."""
    for found in lockstep(lane(task, *ours), lane(task, *theirs), build.windows(theirs[0], task)):
        for mismatch in found.mismatches:
            if part in (None, mismatch.part):
                figures = found.figures.get(mismatch.part) if mismatch.kind == Kind.BITS else None
                return First(place_of(found), mismatch, figures)
    return None


def parameters_apart(task: Task, ours: tuple[Config, Loop], theirs: tuple[Config, Loop]) -> Iterator[Figures]:
    """How far the parameters of two loops are apart after each step."""
    lanes = lane(task, *ours), lane(task, *theirs)
    for window in build.windows(theirs[0], task):
        for each in lanes:
            advance(each, window)
        yield figures_of(zip(lanes[0].run.parameters, lanes[1].run.parameters, strict=True))


def advance(lane: Lane, window: Window[Any]) -> None:
    """One step, without a stop."""
    with lane.random.active():
        for _ in lane.step(lane.run, window):
            pass


def lane(task: Task, config: Config, loop: Loop) -> Lane:
    """A run of ``task`` that ``loop`` drives."""
    made = build.lane(config, task, "backward")
    return replace(made, step=loop.step, run=replace(made.run, route=loop.route))


def place_of(found: Comparison) -> Place:
    """Where ``found`` was found."""
    return Place(found.step, found.microbatch, found.phase)
