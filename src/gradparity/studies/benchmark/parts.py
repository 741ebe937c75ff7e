"""The parts of the benchmark: each measures, and returns tables, a sentence, a picture and exact figures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from matplotlib.figure import Figure
from rich.table import Table

from gradparity.processes.launch import launch
from gradparity.studies.benchmark import growth, imports, picture, routes, scale, tables, throughput, watching
from gradparity.studies.benchmark.subjects import config, small_transformer, subject, transformer
from gradparity.studies.benchmark.watching import LOCKSTEP, RECORD

Bar: TypeAlias = Callable[[str, int], Callable[[], object]]
"""Starts a progress bar with a name and a number of ticks; returns the function to call at each tick."""

FEW = 5
"""The most rounds of a part that takes long and varies little."""


@dataclass(frozen=True)
class Found:
    """The results of a part."""

    tables: Sequence[Table]
    why: str
    answer: str
    figure: Figure | None
    figures: Sequence[Any]
    """The dataclasses that all of these are made from."""


def of_routes(full: bool, rounds: int, bar: Bar) -> Found:
    """Measure the manual routes against ``.backward()``."""
    tick = bar("routes", rounds * len(routes.CASES))
    found = [one for case in routes.CASES for one in routes.costs(case, rounds, tick)]
    return Found([tables.routes(found)], tables.WHY_ROUTES, routes.answer(found), picture.routes(found), found)


def of_watching(full: bool, rounds: int, bar: Bar) -> Found:
    """Measure lockstep and recording, on a large and a small model; on the small one also the alternatives."""
    of_large, of_small = max(2, rounds // 2), 2 * rounds  # a large step takes long, and a short one varies
    tick = bar("watching", of_large + of_small)
    loops = ("backward", "manual")
    found = watching.costs("transformer", *subject(transformer(), loops, config()), of_large, tick, others=full)
    lanes, window = subject(small_transformer(), loops, config())
    found += watching.costs("small transformer", lanes, window, of_small, tick, others=True)
    peer = watching.trainparity("small transformer", lanes[0], window)
    absent = (
        "" if peer else f" {watching.TRAINPARITY} was left out: it is not installed (gradparity[peers], Python 3.11)."
    )
    found += [peer] if peer else []
    why = tables.WHY_WATCHING + absent
    return Found([tables.watching(found)], why, watching.answer(found), picture.watching(found), found)


def of_throughput(full: bool, rounds: int, bar: Bar) -> Found:
    """Measure comparing and hashing, against reading."""
    found = throughput.throughputs(throughput.MEGABYTES, 3 * rounds, bar("throughput", 3 * rounds))
    answer = throughput.answer(found)
    return Found([tables.throughput(found)], tables.WHY_THROUGHPUT, answer, picture.throughput(found), found)


def of_growth(full: bool, rounds: int, bar: Bar) -> Found:
    """Measure growth with parameters, tensors and steps; the largest of each only with ``full``."""
    rounds, most = min(rounds, FEW), None if full else -1
    widths, counts, marks = growth.WIDTHS[:most], growth.TENSORS[:most], growth.STEPS[:most]
    tick = bar("growth", rounds * (len(widths) + len(counts)) + 2)
    by_parameters = [growth.by_parameters(width, rounds, tick) for width in widths]
    by_tensors = [growth.by_tensors(count, rounds, tick) for count in counts]
    along: list[growth.Stretch] = []
    for way in (LOCKSTEP, RECORD):
        along += launch(growth.by_steps, 1, way, marks, seconds=1800)[0]
        tick()
    grown = [
        tables.growth("Growth with parameters", by_parameters),
        tables.growth("Growth with tensors of ten elements", by_tensors),
        tables.steps(along),
    ]
    answer = tables.growth_answer(by_parameters, by_tensors, along)
    drawn = picture.growth(by_parameters, by_tensors)
    return Found(grown, tables.WHY_GROWTH, answer, drawn, [*by_parameters, *by_tensors, *along])


def of_ranks(full: bool, rounds: int, bar: Bar) -> Found:
    """Measure lockstep and recording on 1, 2 and 4 ranks; without ``full`` on 1 and 2."""
    numbers = scale.RANKS if full else scale.RANKS[:2]
    tick = bar("ranks", len(numbers))
    found = []
    for ranks in numbers:
        found.append(scale.on_ranks(ranks, max(2, min(rounds, FEW) - 2)))
        tick()
    return Found([tables.ranks(found)], tables.WHY_RANKS, scale.answer(found), picture.ranks(found), found)


def of_imports(full: bool, rounds: int, bar: Bar) -> Found:
    """Measure the startup time."""
    rounds = min(rounds, FEW)
    found = imports.starts(rounds, bar("imports", rounds))
    return Found(
        [tables.imports(found)], "What is imported is imported when it is needed.", imports.answer(found), None, found
    )


PARTS: dict[str, Callable[[bool, int, Bar], Found]] = {
    "routes": of_routes,
    "watching": of_watching,
    "throughput": of_throughput,
    "growth": of_growth,
    "ranks": of_ranks,
    "imports": of_imports,
}
DEFAULT = ("watching", "throughput")
"""Parts that take less than a minute."""
