"""The cost of gradients wired by hand: time and memory of a step, over those of ``.backward()``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median

from gradparity.parity.lockstep import LockstepRun
from gradparity.studies.benchmark.clock import Spread, in_turn, ratio, timed
from gradparity.studies.benchmark.memory import peak_bytes
from gradparity.studies.benchmark.subjects import config, mlp, size, step, subject, transformer
from gradparity.studies.tasks import Batch, Task
from gradparity.studies.two_ways.config import Config, PrecisionName
from gradparity.training import Phase, Window

ROUTES = ("backward", "manual", "frugal")
MODELS: dict[str, tuple[Callable[[], Task], int]] = {"MLP": (mlp, 32), "transformer": (transformer, 2)}
"""With the size of a microbatch. It is small, as the wiring weighs more if the forward computes less."""
PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "bf16")
ACCUMULATION_STEPS = (1, 4)
CASES = list(product(MODELS, PRECISIONS, ACCUMULATION_STEPS))


@dataclass(frozen=True)
class RouteCost:
    """One model, trained by one route."""

    model: str
    parameters: int
    precision: str
    k: int
    """Accumulation steps."""
    route: str
    time: Spread
    """Time of a step, over that of ``.backward()`` in the same round."""
    peak: float
    """The most bytes that a step holds before the optimizer runs, over the bytes of the parameters. Parameters and
    optimizer state are not counted."""


def costs(case: tuple[str, PrecisionName, int], rounds: int, tick: Callable[[], object]) -> list[RouteCost]:
    """Measure the three routes on a model of :data:`MODELS`, in a precision, with some accumulation steps."""
    model, precision, k = case
    task, microbatch = MODELS[model]
    return costs_of(model, task(), config(k=k, microbatch=microbatch, precision=precision), rounds, tick)


def costs_of(model: str, task: Task, training: Config, rounds: int, tick: Callable[[], object]) -> list[RouteCost]:
    """Measure the three routes on any model."""
    lanes, window = subject(task, ROUTES, training)
    ways = [timed(route, partial(step, lane, window)) for route, lane in zip(ROUTES, lanes, strict=True)]
    seconds = in_turn(ways, rounds, tick)
    found = []
    for route, lane in zip(ROUTES, lanes, strict=True):
        lane.run.optimizer.zero_grad()
        peak = peak_bytes(partial(gradients, lane, window)) / sum(p.nbytes for p in lane.run.parameters)
        time = ratio(seconds[route], seconds["backward"])
        found.append(RouteCost(model, size(lane), training.precision, training.accumulation_steps, route, time, peak))
    return found


def gradients(lane: LockstepRun, window: Window[Batch]) -> None:
    """Run a step until all gradients are accumulated and unscaled."""
    next(moment for moment in lane.step(lane.run, window) if moment.phase == Phase.UNSCALED)


def answer(found: Sequence[RouteCost]) -> str:
    """Return the median of all cases, and the extremes, in one sentence."""
    told = []
    for route in ROUTES[1:]:
        times = [one.time.median for one in of(found, route)]
        peaks = [one.peak / base.peak for one, base in zip(of(found, route), of(found, ROUTES[0]), strict=True)]
        told.append(
            f"{route} takes {median(times):.2f} times as long ({min(times):.2f} to {max(times):.2f}) "
            f"and {min(peaks):.2f} to {max(peaks):.2f} times the memory"
        )
    return f"Against .backward(), {' and '.join(told)}."


def of(found: Sequence[RouteCost], route: str) -> list[RouteCost]:
    """Return the costs of one route."""
    return [one for one in found if one.route == route]
