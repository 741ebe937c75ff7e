"""A model of 25 million parameters on several ranks: the time and memory that watching adds on each."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure
from rich.table import Table

from gradparity.parity.lockstep import lockstep
from gradparity.processes.launch import launch
from gradparity.studies.benchmark.clock import Spread, ratio
from gradparity.studies.benchmark.growth import peak_megabytes
from gradparity.studies.benchmark.presentation import (
    FEW,
    Bar,
    cost_table,
    draw_aim,
    draw_spreads,
    panels_with,
    part_result,
)
from gradparity.studies.benchmark.timed_models import config, parameter_count, transformer
from gradparity.studies.benchmark.watched_steps import (
    CANDIDATE,
    LOCKSTEP,
    RECORD,
    REFERENCE,
    one_step,
    recording,
    watched_seconds,
    watched_step,
)
from gradparity.studies.benchmark.watching_cost import WAY_COLORS
from gradparity.studies.distributed.trial import Trial, rank_lane, windows_of_rank
from gradparity.studies.result import Result

RANK_COUNTS = (1, 2, 4)
WIDTH, LAYERS = 512, 8
_WHY = (
    "Each rank watches its own replica, and none waits for another to do so. Processes that share a machine "
    "share the speed of its memory, which is what watching needs. In lockstep a rank holds two trainings, "
    "and the graphs of both at once."
)


@dataclass(frozen=True)
class RankCost:
    """The measurements of the slowest rank."""

    ranks: int
    parameters: int
    bare: float
    """Milliseconds of a step with DDP."""
    times: dict[str, Spread]
    """Time ratios, by way: lockstep over both trainings, a recording over one."""
    megabytes: dict[str, float]
    """The most memory of a rank's process, by way; :data:`REFERENCE` is one training, :data:`CANDIDATE` is both."""


def measure_ranks(full: bool, rounds: int, bar: Bar) -> Result:
    """Measure lockstep and recording on 1, 2 and 4 ranks; without ``full`` on 1 and 2."""
    numbers = RANK_COUNTS if full else RANK_COUNTS[:2]
    tick = bar("ranks", len(numbers))
    found = []
    for ranks in numbers:
        found.append(on_ranks(ranks, max(2, min(rounds, FEW) - 2)))
        tick()
    return part_result("ranks", _sentence(found), _WHY, [_table(found)], _figure(found), found)


def on_ranks(ranks: int, rounds: int, width: int = WIDTH, layers: int = LAYERS) -> RankCost:
    """Train with DDP and by hand on ``ranks`` processes of this machine, and return the cost on the slowest.

    Raises:
        UserError: if a rank fails.
    """
    found: list[RankCost] = launch(cost_of_rank, ranks, ranks, rounds, width, layers, seconds=900, patience=300)
    return max(found, key=lambda one: one.bare)


def cost_of_rank(ranks: int, rounds: int, width: int, layers: int) -> RankCost:
    """Measure this rank.

    Memory is measured first: each way needs all that the previous one needs, so the peak grows with each.
    """
    task, trial = transformer(width, layers), Trial(config=config())
    window = next(windows_of_rank(trial, task))
    megabytes = {}
    reference = rank_lane(trial, task, "ddp")
    for _ in range(2):  # the optimizer's state exists from the second step on
        watched_step(reference, window, nullcontext)
    megabytes[REFERENCE] = peak_megabytes()
    with TemporaryDirectory() as folder:
        watched_step(reference, window, lambda: recording(reference.run, Path(folder) / "trace"))
    megabytes[RECORD] = peak_megabytes()
    candidate = rank_lane(trial, task, "manual")
    for _ in range(3):  # as many steps as the reference has made
        watched_step(candidate, window, nullcontext)
    megabytes[CANDIDATE] = peak_megabytes()
    compared = lockstep(reference, candidate, repeat(window))
    next(compared)
    one_step(compared)
    megabytes[LOCKSTEP] = peak_megabytes()
    seconds = watched_seconds(reference, candidate, window, rounds, lambda: None, [])
    both = [sum(pair) for pair in zip(seconds[REFERENCE], seconds[CANDIDATE], strict=True)]
    times = {LOCKSTEP: ratio(seconds[LOCKSTEP], both), RECORD: ratio(seconds[RECORD], seconds[REFERENCE])}
    bare = 1e3 * sorted(seconds[REFERENCE])[rounds // 2]
    return RankCost(ranks, parameter_count(reference), bare, times, megabytes)


def _sentence(found: Sequence[RankCost]) -> str:
    """Return the result in one sentence."""
    ratios = [f"{way} takes {', '.join(f'{one.times[way].median:.3f}' for one in found)}" for way in (LOCKSTEP, RECORD)]
    return (
        f"With {found[0].parameters / 1e6:.0f}M parameters on {', '.join(str(one.ranks) for one in found)} ranks "
        f"{' and '.join(ratios)} times as long as the same steps unwatched."
    )


def _table(found: Sequence[RankCost]) -> Table:
    """Tabulate time and memory on several ranks."""
    table = cost_table(
        "Several ranks, the slowest of them: times as long, and the most memory in MB", "ranks", "step\nms",
        "lockstep", "recording", "MB: one\nalone", "\nrecorded", "both\nalone", "in\nlockstep",
    )  # fmt: skip
    for one in found:
        memory = (f"{one.megabytes[way]:,.0f}" for way in (REFERENCE, RECORD, CANDIDATE, LOCKSTEP))
        times = (f"{one.times[way].median:.3f}" for way in (LOCKSTEP, RECORD))
        table.add_row(str(one.ranks), f"{one.bare:.0f}", *times, *memory)
    return table


def _figure(found: Sequence[RankCost]) -> Figure:
    """Draw the ratios by the number of ranks."""
    made, (axes,) = panels_with(
        f"A watched step of {found[0].parameters / 1e6:.0f}M parameters, times the same unwatched", 1
    )
    names = [f"{way}\n{one.ranks} ranks" for way in (LOCKSTEP, RECORD) for one in found]
    pairs = [(way, one.times[way]) for way in (LOCKSTEP, RECORD) for one in found]
    draw_spreads(axes, names, [time for _, time in pairs], [WAY_COLORS[way] for way, _ in pairs])
    draw_aim(axes, "lower right")
    return made
