"""Lookup in the fault dictionary on several ranks: the reference runs with each fault on all ranks together.

The observations of all ranks are merged into one list, which every rank gets. So each rank does the same lookup and
makes the same decisions, as if one rank observed everything.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import zip_longest

import torch.distributed as dist

from gradparity.check.lookup.fault_lookup import Finding, look_up
from gradparity.check.lookup.rounding import CLOSE_IN_FP32, RunReference, bugs_of, first_match, is_close
from gradparity.check.lookup.seen_runs import SeenRun
from gradparity.check.lookup.step_norms import may_be_close, norms_of, run_norms
from gradparity.check.presentation.progress import progress_bar
from gradparity.check.rank_worker import observe_rank
from gradparity.check.running.loop_end import EndKind, LoopEnd
from gradparity.check.running.observe import GoOn, Observation, ObservedLoop, common_prefix
from gradparity.faults import FAULTS, Change, Fault, FaultKind
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.faults.patching_on_ranks import on_ranks_with
from gradparity.parity.state import Part
from gradparity.processes.collective_guard import CollectiveGuard
from gradparity.trace.events import Trace

_MOST_PAIRS = 300
"""Most pairs to try: fewer than on one rank, since a run takes several times as long if ranks wait for each other."""

NEEDING_UNUSED_PARAMETERS = (
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
    shown = {
        name: f
        for name, f in FAULTS.items()
        if name not in NEEDING_UNUSED_PARAMETERS and f.kind != FaultKind.RAISES and fits_on_ranks(f)
    }
    return RANK_FAULTS | shown


def fits_on_ranks(fault: Fault) -> bool:
    """Return whether the loop on several ranks has the lines that ``fault`` changes."""
    try:
        on_ranks_with([fault])
    except ValueError:
        return False
    return True


def look_up_on_ranks(
    loops: Sequence[ObservedLoop],
    references: Sequence[ObservedLoop],
    precision: str,
    first: int,
    quiet: bool,
    memory: dict[str, SeenRun],
) -> tuple[Finding, dict[str, SeenRun]]:
    """Find the faults with which the reference behaves as a loop does, on all ranks.

    Args:
        loops: the loop, observed on each rank.
        references: the reference, observed on each rank.
        precision: of both.
        first: the rank that diverges first.
        quiet: show no progress.
        memory: the runs that are remembered, the same on all ranks.

    Returns:
        The finding, and on rank 0 the memory with the runs that were made here.
    """
    guard = CollectiveGuard()
    run_reference, mine = guarded_reference(guard), loops[dist.get_rank()].observations

    def as_mine(_: object, found: Sequence[Observation]) -> bool:
        return found[-1:] == mine[len(found) - 1 : len(found)]

    def observe(faults: Sequence[Fault], _: Sequence[Observation]) -> ObservedLoop:
        run = run_reference(faults, precision, as_mine)
        shared = common_prefix(run.observations, mine)  # most of them; all ranks have these already
        parts = guard.gather((shared, run.observations[shared:], run.end))
        merged = merge_ranks([[*loop.observations[:n], *rest] for loop, (n, rest, _) in zip(loops, parts, strict=True)])
        ends = [end for *_, end in parts if not end.finished]
        stopped = [end for end in ends if end.kind == EndKind.STOPPED]
        if stopped:  # then the other ranks did not get as far, and what they lack is not what a whole run has there
            merged = replace(merged, observations=list(_in_turns(merged.observations, len(loops))))
        return replace(merged, end=next(iter([*stopped, *ends]), LoopEnd()))

    with progress_bar(shown=dist.get_rank() == 0 and not quiet) as progress:
        finding = look_up(
            merge_ranks([loop.observations for loop in loops], loops[first].trace),
            merge_ranks([reference.observations for reference in references], references[first].trace),
            observe,
            progress,
            known_on_ranks(),
            _MOST_PAIRS,
            memory=memory,
        )
    return finding, memory if dist.get_rank() == 0 else {}


def _in_turns(merged: Sequence[Observation], ranks: int) -> Iterator[Observation]:
    """Yield the observations of all ranks up to the first that a rank lacks."""
    for index, one in enumerate(merged):
        if (Part.RNG, "rank", index % ranks) not in one.content:
            return
        yield one


def match_with_rounding_on_ranks(
    loops: Sequence[ObservedLoop], in_fp32: Sequence[ObservedLoop], precision: str
) -> tuple[Fault, ...] | None:
    """Return the fault that a loop behaves like on all ranks, except for rounding.

    See :mod:`gradparity.check.lookup.rounding`.
    """
    guard, rank = CollectiveGuard(), dist.get_rank()
    run_reference, expected = guarded_reference(guard), norms_of(in_fp32[rank])

    def close_on_all(loop: ObservedLoop, faults: Sequence[Fault], precision: str, tolerance: float) -> bool:
        return all(guard.gather(is_close(loop, faults, precision, tolerance, run_reference)))

    def may_be_close_on_all(fault: Fault) -> bool:
        names = on_ranks_with([fault])
        guard.guard(names)
        loop, build = names["reference_on_ranks"], names["build_on_ranks"]
        run = run_norms(loop, build, "fp32", expected, CLOSE_IN_FP32, seed=rank)
        guard.end_run()
        return all(guard.gather(may_be_close(run, expected, CLOSE_IN_FP32)))

    if first_match(loops[rank], in_fp32[rank], precision, (), close_on_all) == ():
        return ()
    possible = [fault for fault in bugs_of(known_on_ranks().values()) if may_be_close_on_all(fault)]
    return first_match(loops[rank], in_fp32[rank], precision, possible, close_on_all, reference_too=False)


def guarded_reference(guard: CollectiveGuard) -> RunReference:
    """Return a function that runs the reference with faults, on all ranks or on none."""

    def run_reference(faults: Sequence[Change], precision: str, go_on: GoOn) -> ObservedLoop:
        names = on_ranks_with(faults)
        guard.guard(names)
        run = observe_rank(names["reference_on_ranks"], names["build_on_ranks"], precision, go_on)
        guard.end_run()
        return run

    return run_reference


def merge_ranks(ranks: Sequence[Sequence[Observation]], trace: Trace | None = None) -> ObservedLoop:
    """Return the observations of all ranks as those of one loop, with the ``trace`` of one of the ranks."""
    observations = [
        one._replace(content=one.content | {(Part.RNG, "rank", rank)})
        for at_once in zip_longest(*ranks)
        for rank, one in enumerate(at_once)
        if one is not None
    ]
    return ObservedLoop(trace or Trace({}, []), observations)
