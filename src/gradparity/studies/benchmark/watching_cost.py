"""The cost of watching a training, as ratios: by gradparity, and by the alternatives, on the same work."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from rich.table import Table

from gradparity.parity.lockstep import LockstepRun
from gradparity.studies.benchmark.clock import Spread, ratio, spread
from gradparity.studies.benchmark.presentation import (
    BLUE,
    BROWN,
    GRAY,
    Bar,
    cost_table,
    draw_aim,
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
    small_transformer,
    transformer,
)
from gradparity.studies.benchmark.watched_steps import (
    AUDIT,
    CANDIDATE,
    CLOSE,
    EQUAL,
    HASHES,
    LET_GO,
    LOCKSTEP,
    RECORD,
    REFERENCE,
    added_memory,
    hashed_seconds,
    watched_seconds,
)
from gradparity.studies.result import Result
from gradparity.studies.tasks import Batch
from gradparity.training import Window

WAY_COLORS = {LOCKSTEP: BLUE, RECORD: BROWN, AUDIT: BROWN, LET_GO: BROWN}
_WHY = (
    "Lockstep reads gradients at four phases, parameters and moments once each; a recording reads them for a hash and "
    "again for a norm. That does not depend on the number of tokens, and a step does: the more tokens, the nearer to 1."
)


@dataclass(frozen=True)
class WatchingCost:
    """One training, watched in one way."""

    model: str
    parameters: int
    way: str
    bare: float
    """Milliseconds of an unwatched step; for lockstep, of one step by the reference and one by the candidate."""
    adds: float
    """Milliseconds that watching it adds."""
    time: Spread
    """Time over that of the same steps, unwatched, in the same round."""
    memory: float | None
    """Most memory that watching adds, in sizes of the parameters; ``None`` where it is not measured."""


def measure_watching(full: bool, rounds: int, bar: Bar) -> Result:
    """Measure lockstep, recording and audit, on a large and a small model; on the small one also the alternatives."""
    of_large, of_small = max(2, rounds // 2), 2 * rounds  # a large step takes long, and a short one varies
    tick = bar("watching", of_large + of_small)
    loops = ("backward", "manual")
    found = watching_costs(
        "transformer", *lanes_and_window(transformer(), loops, config()), of_large, tick, others=full
    )
    found += watching_costs(
        "small transformer", *lanes_and_window(small_transformer(), loops, config()), of_small, tick, others=True
    )
    return part_result("watching", _sentence(found), _WHY, [ways_table("Watching", found)], ways_figure(found), found)


def watching_costs(
    model: str,
    lanes: Sequence[LockstepRun],
    window: Window[Batch],
    rounds: int,
    tick: Callable[[], object],
    *,
    others: bool,
) -> list[WatchingCost]:
    """Measure lockstep of two ``lanes``, and watching of the first; with ``others``, also the alternatives."""
    reference, candidate = lanes
    ways = [CLOSE, EQUAL] if others else []
    seconds = watched_seconds(reference, candidate, window, rounds, tick, ways)
    both = [sum(pair) for pair in zip(seconds[REFERENCE], seconds[CANDIDATE], strict=True)]
    found = [(LOCKSTEP, both, seconds[LOCKSTEP])]
    found += [(way, seconds[REFERENCE], seconds[way]) for way in (RECORD, AUDIT, LET_GO, *ways)]
    if others:  # hashes take so long that one round of them would outlast all other rounds
        found.append((HASHES, *hashed_seconds(reference, window, max(2, rounds // 3))))
    count, added = parameter_count(reference), added_memory(reference, window)
    size = sum(p.nbytes for p in reference.run.parameters)
    return [cost_of(model, count, *one, added[one[0]] / size if one[0] in added else None) for one in found]


def cost_of(
    model: str, parameters: int, way: str, bare: Sequence[float], watched: Sequence[float], memory: float | None
) -> WatchingCost:
    """Return the cost of one way from the seconds of steps, bare and watched, of the same rounds."""
    adds = _added(bare, watched)
    return WatchingCost(model, parameters, way, _milliseconds(bare), adds, ratio(watched, bare), memory)


def _milliseconds(seconds: Sequence[float]) -> float:
    """Return the median of ``seconds``, in milliseconds."""
    return 1e3 * spread(seconds).median


def _added(bare: Sequence[float], watched: Sequence[float]) -> float:
    """Return the milliseconds that watching adds, in the median of all rounds."""
    return _milliseconds([more - less for less, more in zip(bare, watched, strict=True)])


def _sentence(found: Sequence[WatchingCost]) -> str:
    """Return the result in one sentence."""
    steps = " and ".join(f"{one.bare:.0f} ms" for one in found if one.way == RECORD)
    ways = (
        f"{way} {' and '.join(f'{one.time.median:.3f}' for one in found if one.way == way)}"
        for way in (LOCKSTEP, RECORD, AUDIT)
    )
    return f"Times as long as the same steps of {steps} unwatched: {', '.join(ways)}."


def ways_table(title: str, found: Sequence[WatchingCost]) -> Table:
    """Tabulate the time that watching adds, by way."""
    table = cost_table(title, "", "size", "unwatched\nms", "adds\nms", "times\nas long", "adds memory\n(parameters)")
    for one in found:
        table.add_row(
            one.way,
            millions(one.parameters),
            f"{one.bare:.1f}",
            f"{one.adds:.1f}",
            median_and_quartiles(one.time, 3).replace(" ", "\n"),
            "" if one.memory is None else f"{one.memory:.2f}",
        )
    return table


def ways_figure(found: Sequence[WatchingCost]) -> Figure:
    """Draw the ratios on a logarithmic scale, as the ways differ by powers of ten."""
    made, (axes,) = panels_with("A watched step, times the same unwatched", 1)
    names = [f"{one.way}\n{one.model}" for one in found]
    draw_spreads(axes, names, [one.time for one in found], [WAY_COLORS.get(one.way, GRAY) for one in found])
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    draw_aim(axes, "upper right")
    return made
