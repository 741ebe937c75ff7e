"""The cost of gradients wired by hand: time and memory of a step, over those of ``.backward()``."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median

from matplotlib.figure import Figure
from rich.table import Table

from gradparity.parity.lockstep import LockstepRun
from gradparity.studies.benchmark.clock import Spread, in_turn, ratio, timed
from gradparity.studies.benchmark.memory import peak_bytes
from gradparity.studies.benchmark.presentation import (
    BLUE,
    BROWN,
    GRAY,
    Bar,
    cost_table,
    draw_spreads,
    median_and_quartiles,
    millions,
    panels_with,
    part_result,
)
from gradparity.studies.benchmark.timed_models import (
    config,
    lanes_and_window,
    parameter_count,
    transformer,
    unwatched_step,
    wide_mlp,
)
from gradparity.studies.result import Result
from gradparity.studies.tasks import Batch, Task
from gradparity.studies.train_two_ways.config import Config, PrecisionName
from gradparity.training import Phase, Window

_ROUTES = ("backward", "manual", "frugal")
MODELS: dict[str, tuple[Callable[[], Task], int]] = {"MLP": (wide_mlp, 32), "transformer": (transformer, 2)}
"""With the size of a microbatch. It is small, as the wiring weighs more if the forward computes less."""
_PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "bf16")
_ACCUMULATION_STEPS = (1, 4)
CASES = list(product(MODELS, _PRECISIONS, _ACCUMULATION_STEPS))
_COLORS = dict(zip(_ROUTES, (GRAY, BLUE, BROWN), strict=True))
_WHY = (
    "Both make the same forward and the same sums. autograd.grad returns all gradients at once, so from the second "
    "microbatch on `manual` holds two sets of them; `frugal` adds each in a hook as it comes, as .backward() does. "
    "Memory is that of forwards and backwards; what the optimizer takes after them is the same for all."
)


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


def measure_routes(full: bool, rounds: int, bar: Bar) -> Result:
    """Measure the manual routes against ``.backward()``."""
    tick = bar("routes", rounds * len(CASES))
    found = [one for case in CASES for one in route_costs(case, rounds, tick)]
    return part_result("routes", _sentence(found), _WHY, [_table(found)], _figure(found), found)


def route_costs(case: tuple[str, PrecisionName, int], rounds: int, tick: Callable[[], object]) -> list[RouteCost]:
    """Measure the three routes on a model of :data:`MODELS`, in a precision, with some accumulation steps."""
    model, precision, k = case
    task, microbatch = MODELS[model]
    return _costs_of(model, task(), config(k=k, microbatch=microbatch, precision=precision), rounds, tick)


def _costs_of(model: str, task: Task, training: Config, rounds: int, tick: Callable[[], object]) -> list[RouteCost]:
    """Measure the three routes on any model."""
    lanes, window = lanes_and_window(task, _ROUTES, training)
    ways = [timed(route, partial(unwatched_step, lane, window)) for route, lane in zip(_ROUTES, lanes, strict=True)]
    seconds = in_turn(ways, rounds, tick)
    found = []
    for route, lane in zip(_ROUTES, lanes, strict=True):
        lane.run.optimizer.zero_grad()
        peak = peak_bytes(partial(_run_up_to_gradients, lane, window)) / sum(p.nbytes for p in lane.run.parameters)
        time = ratio(seconds[route], seconds["backward"])
        found.append(
            RouteCost(model, parameter_count(lane), training.precision, training.accumulation_steps, route, time, peak)
        )
    return found


def _run_up_to_gradients(lane: LockstepRun, window: Window[Batch]) -> None:
    """Run a step until all gradients are accumulated and unscaled."""
    next(moment for moment in lane.step(lane.run, window) if moment.phase == Phase.UNSCALED)


def _sentence(found: Sequence[RouteCost]) -> str:
    """Return the median of all cases, and the extremes, in one sentence."""
    sentences = []
    for route in _ROUTES[1:]:
        times = [one.time.median for one in _of_route(found, route)]
        peaks = [
            one.peak / base.peak
            for one, base in zip(_of_route(found, route), _of_route(found, _ROUTES[0]), strict=True)
        ]
        sentences.append(
            f"{route} takes {median(times):.2f} times as long ({min(times):.2f} to {max(times):.2f}) "
            f"and {min(peaks):.2f} to {max(peaks):.2f} times the memory"
        )
    return f"Against .backward(), {' and '.join(sentences)}."


def _of_route(found: Sequence[RouteCost], route: str) -> list[RouteCost]:
    """Return the costs of one route."""
    return [one for one in found if one.route == route]


def _table(found: Sequence[RouteCost]) -> Table:
    """Tabulate the time of the manual routes over ``.backward()``, and the memory of all three, a row for each case."""
    table = cost_table(
        "Wiring gradients by hand: time over that of .backward(), most memory in sizes of the parameters",
        "", "time:\nmanual", "\nfrugal", "memory:\nbackward", "\nmanual", "\nfrugal",
    )  # fmt: skip
    for base, manual, frugal in zip(*(_of_route(found, route) for route in _ROUTES), strict=True):
        memory = (f"{one.peak:.2f}" for one in (base, manual, frugal))
        case = f"{base.model} {millions(base.parameters)} {base.precision} K {base.k}"
        times = (median_and_quartiles(one.time).replace(" ", "\n") for one in (manual, frugal))
        table.add_row(case, *times, *memory)
    return table


def _figure(found: Sequence[RouteCost]) -> Figure:
    """Draw time and memory of the routes."""
    made, (time, memory) = panels_with("Wiring gradients by hand, against .backward()", 2)
    names = [f"{one.model}, {one.precision}, K = {one.k}, {one.route}" for one in found]
    colors = [_COLORS[one.route] for one in found]
    shown = [index for index, one in enumerate(found) if one.route != _ROUTES[0]]
    draw_spreads(time, [names[i] for i in shown], [found[i].time for i in shown], [colors[i] for i in shown])
    time.axvline(1, color="black", linewidth=0.8)
    time.set_xlabel("time of a step, times .backward()")
    memory.barh(names, [one.peak for one in found], color=colors)
    memory.tick_params(axis="y", labelsize=8)
    memory.invert_yaxis()
    memory.set_xlabel("most memory, in sizes of the parameters")
    return made
