"""Lookup in the fault dictionary on several ranks: the reference runs with each fault on all ranks together.

The looks of all ranks are put in one row, look by look and rank by rank, and every rank gets the same row. So each rank
does the same lookup and makes the same decisions, as if one rank saw everything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import zip_longest

import torch.distributed as dist
from rich.console import Console
from rich.progress import Progress

from gradparity.check.lookup import Finding, look_up
from gradparity.check.observe import GoOn, Look, Observed, common_prefix
from gradparity.check.rank_worker import observe_rank
from gradparity.check.rounding import Watch, alike, like_which
from gradparity.faults import FAULTS, Fault, FaultKind
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.faults.patching_on_ranks import on_ranks_with
from gradparity.parity.state import Part
from gradparity.processes.collective_guard import Together
from gradparity.trace.events import Trace

MOST_PAIRS_ON_RANKS = 300
"""Most pairs to try: fewer than on one rank, since a run takes several times as long if ranks wait for each other."""

UNSEEN = (
    "zeros-instead-of-none",
    "none-filled-with-zeros",
    "unused-materialized-as-zeros",
    "none-dropped-before-pairing",
    "unused-parameters-decayed",
    "branch-always-taken",
    "unused-parameters-touched-by-zero",
)
"""Faults of parameters that a step does not use. On several ranks there are no such parameters."""


@cache
def known_on_ranks() -> Mapping[str, Fault]:
    """Return the faults of several ranks, and those of one rank that show on several and do not stop the loop."""
    shown = {name: f for name, f in FAULTS.items() if name not in UNSEEN and f.kind != FaultKind.RAISES and fits(f)}
    return RANK_FAULTS | shown


def fits(fault: Fault) -> bool:
    """Return whether the loop on several ranks has the lines that ``fault`` changes."""
    try:
        on_ranks_with([fault])
    except ValueError:
        return False
    return True


def look_up_on_ranks(loops: Sequence[Observed], references: Sequence[Observed], precision: str, first: int) -> Finding:
    """Find the faults with which the reference behaves as a loop does, on all ranks.

    Args:
        loops: the loop as it was observed on each rank.
        references: the reference as it was observed on each rank.
        precision: of both.
        first: the rank that diverges first.
    """
    ranks = Together()
    watch, mine = watched_together(ranks), loops[dist.get_rank()].looks

    def see(faults: Sequence[Fault], _: Sequence[Look]) -> Observed:
        seen = watch(faults, precision, lambda _, looks: looks[-1:] == mine[len(looks) - 1 : len(looks)])
        shared = common_prefix(seen.looks, mine)  # most of the looks; all ranks have these already
        parts = ranks.gathered((shared, seen.looks[shared:], seen.error))
        row = in_a_row([[*loop.looks[:n], *rest] for loop, (n, rest, _) in zip(loops, parts, strict=True)])
        return replace(row, error=next((error for *_, error in parts if error), None))

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=dist.get_rank() > 0 or not console.is_terminal) as progress:
        task = progress.add_task("looking it up")
        return look_up(
            in_a_row([seen.looks for seen in loops], loops[first].trace),
            in_a_row([seen.looks for seen in references], references[first].trace),
            see,
            lambda done, of: progress.update(task, completed=done, total=of),
            known_on_ranks(),
            MOST_PAIRS_ON_RANKS,
        )


def like_which_on_ranks(
    plain: Sequence[Observed], there: Sequence[Observed], precision: str
) -> tuple[Fault, ...] | None:
    """Return the fault that a loop behaves like on all ranks, except for rounding.

    See :mod:`gradparity.check.rounding`.
    """
    ranks, rank = Together(), dist.get_rank()
    watch = watched_together(ranks)

    def alike_on_all(loop: Observed, faults: Sequence[Fault], precision: str, tolerance: float) -> bool:
        return all(ranks.gathered(alike(loop, faults, precision, tolerance, watch)))

    return like_which(plain[rank], there[rank], precision, known_on_ranks().values(), alike_on_all)


def watched_together(ranks: Together) -> Watch:
    """Return a function that runs the reference with faults, on all ranks or on none."""

    def watch(faults: Sequence[Fault], precision: str, go_on: GoOn) -> Observed:
        names = on_ranks_with(faults)
        ranks.guard(names)
        seen = observe_rank(names["reference_on_ranks"], names["build_on_ranks"], precision, go_on)
        ranks.end()
        return seen

    return watch


def in_a_row(of_ranks: Sequence[Sequence[Look]], trace: Trace | None = None) -> Observed:
    """Return the looks of all ranks as one observation, with the ``trace`` of one of them."""
    looks = [
        look._replace(content=look.content | {(Part.RNG, "rank", rank)})
        for at_once in zip_longest(*of_ranks)
        for rank, look in enumerate(at_once)
        if look is not None
    ]
    return Observed(trace or Trace({}, []), looks)
