"""The measurements as tables for the terminal, each with a line that explains them."""

from collections.abc import Sequence

from rich import box
from rich.table import Column, Table

from gradparity.studies.benchmark.clock import Spread
from gradparity.studies.benchmark.growth import Point, Stretch, line
from gradparity.studies.benchmark.imports import Start
from gradparity.studies.benchmark.routes import ROUTES, RouteCost, of
from gradparity.studies.benchmark.scale import RankCost
from gradparity.studies.benchmark.throughput import Throughput
from gradparity.studies.benchmark.watching import CANDIDATE, LOCKSTEP, RECORD, REFERENCE, WatchingCost

WHY_ROUTES = (
    "Both make the same forward and the same sums. autograd.grad returns all gradients at once, so from the second "
    "microbatch on `manual` holds two sets of them; `frugal` adds each in a hook as it comes, as .backward() does. "
    "Memory is that of forwards and backwards; what the optimizer takes after them is the same for all."
)
WHY_WATCHING = (
    "Lockstep reads gradients at four phases, parameters and moments once each; a recording reads them for a hash and "
    "again for a norm. That does not depend on the number of tokens, and a step does: the more tokens, the nearer to 1."
)
WHY_THROUGHPUT = (
    "A comparison reads both sides once, eight bytes at a time; a fingerprint reads once to hash, once for a norm."
)
WHY_GROWTH = (
    "Parameters cost the time to read them, tensors a handful of calls each, and steps leave nothing in memory."
)
WHY_RANKS = (
    "Each rank watches its own replica, and none waits for another in order to do so. Processes that share a machine "
    "share the speed of its memory, which is what watching needs. In lockstep a rank holds two trainings, "
    "and the graphs of both at once."
)


def told(found: Spread, digits: int = 2) -> str:
    """Format the median, and the two quartiles, between which half of the figures lie."""
    return f"{found.median:.{digits}f} {found.low:.{digits}f}–{found.high:.{digits}f}"


def millions(parameters: int) -> str:
    """Format a number of parameters in millions, with one decimal."""
    return f"{parameters / 1e6:.1f}M"


def grid(title: str, *columns: str) -> Table:
    """Return an empty table, with names aligned to the left and figures to the right."""
    first, *others = columns
    return Table(
        Column(first, no_wrap=True), *(Column(name, justify="right", no_wrap=True) for name in others),
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0),
    )  # fmt: skip


def routes(found: Sequence[RouteCost]) -> Table:
    """Tabulate the time of the manual routes over ``.backward()``, and the memory of all three, a row for each case."""
    table = grid(
        "Wiring gradients by hand: time over that of .backward(), most memory in sizes of the parameters",
        "", "time:\nmanual", "\nfrugal", "memory:\nbackward", "\nmanual", "\nfrugal",
    )  # fmt: skip
    for base, manual, frugal in zip(*(of(found, route) for route in ROUTES), strict=True):
        memory = (f"{one.peak:.2f}" for one in (base, manual, frugal))
        case = f"{base.model} {millions(base.parameters)} {base.precision} K {base.k}"
        times = (told(one.time).replace(" ", "\n") for one in (manual, frugal))
        table.add_row(case, *times, *memory)
    return table


def watching(found: Sequence[WatchingCost]) -> Table:
    """Tabulate the time that watching adds, by way."""
    table = grid("Watching", "", "size", "unwatched\nms", "adds\nms", "times\nas long")
    for one in found:
        table.add_row(
            one.way,
            millions(one.parameters),
            f"{one.bare:.1f}",
            f"{one.adds:.1f}",
            told(one.time, 3).replace(" ", "\n"),
        )
    return table


def throughput(found: Sequence[Throughput]) -> Table:
    """Tabulate speeds, and each of them over the speed of reading."""
    table = grid("Reading main memory", "", "GB/s", "times the speed of reading")
    for one in found:
        table.add_row(one.what, told(one.speed, 1), told(one.of_limit))
    return table


def growth(title: str, points: Sequence[Point]) -> Table:
    """Tabulate the cost that watching adds to a step, by the size of the model."""
    table = grid(
        title, "parameters", "tensors", "a step\nms", "lockstep\nadds, ms", "recording\nadds, ms", "its trace\nbytes"
    )
    for one in points:
        adds = (f"{one.adds[way].median:.2f}" for way in (LOCKSTEP, RECORD))
        table.add_row(f"{one.parameters:,}", f"{one.tensors:,}", f"{one.bare:.2f}", *adds, f"{one.trace:,}")
    return table


def steps(found: Sequence[Stretch]) -> Table:
    """Tabulate time and memory along a training."""
    table = grid(
        "Growth with steps, a process each", "way", "steps so far", "ms a step since", "most memory so far, MB"
    )
    for one in found:
        table.add_row(one.way, f"{one.steps:,}", f"{one.milliseconds:.2f}", f"{one.megabytes:.1f}")
    return table


def ranks(found: Sequence[RankCost]) -> Table:
    """Tabulate time and memory on several ranks."""
    table = grid(
        "Several ranks, the slowest of them: times as long, and the most memory in MB", "ranks", "step\nms",
        "lockstep", "recording", "MB: one\nalone", "\nrecorded", "both\nalone", "in\nlockstep",
    )  # fmt: skip
    for one in found:
        memory = (f"{one.megabytes[way]:,.0f}" for way in (REFERENCE, RECORD, CANDIDATE, LOCKSTEP))
        times = (f"{one.times[way].median:.3f}" for way in (LOCKSTEP, RECORD))
        table.add_row(str(one.ranks), f"{one.bare:.0f}", *times, *memory)
    return table


def imports(found: Sequence[Start]) -> Table:
    """Tabulate the seconds until a program has started."""
    table = grid("Starting a new Python", "", "s", "s above import torch")
    for one in found:
        table.add_row(one.what, told(one.seconds), told(one.above))
    return table


def growth_answer(by_parameters: Sequence[Point], by_tensors: Sequence[Point], along: Sequence[Stretch]) -> str:
    """Return the growth with each way of watching, in one sentence."""
    told = []
    for way in (LOCKSTEP, RECORD):
        constant, slope = line([p.parameters for p in by_parameters], [p.adds[way].median for p in by_parameters])
        _, each = line([p.tensors for p in by_tensors], [p.adds[way].median for p in by_tensors])
        first, *_, last = (one for one in along if one.way == way)
        told.append(
            f"{way} adds {constant:.2f} ms to a step, {slope * 1e6:.1f} ms for each million parameters and "
            f"{each * 1e3:.0f} µs for each tensor; from step {first.steps} to {last.steps:,} its memory grew by "
            f"{last.megabytes - first.megabytes:.1f} MB"
        )
    return f"{'; '.join(told)}."
