"""``gradparity check --nproc``: a training loop on several ranks, looked up among faults of one rank and of several.

There is one verdict for all ranks. If a rank does not finish the loop, one sentence reports it, in bounded time.
"""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gradparity.check import rank_worker
from gradparity.check.lookup import fault_lookup_on_ranks
from gradparity.check.lookup.fault_lookup import Finding, Match, first_shown
from gradparity.check.lookup.fault_lookup_on_ranks import (
    known_on_ranks,
    look_up_on_ranks,
    match_with_rounding_on_ranks,
    merge_ranks,
)
from gradparity.check.lookup.kept_runs import KeptRuns
from gradparity.check.presentation.result import CheckResult
from gradparity.check.rank_worker import error_of_rank, observe_both, observe_both_again, observe_in_fp32
from gradparity.check.running.probe import Probe
from gradparity.check.running.uncheckable import steps_made
from gradparity.check.running.user_loop import load_loop
from gradparity.errors import UserError
from gradparity.faults import FAULTS
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.processes.fork_server import start_fork_server
from gradparity.processes.launch import launch
from gradparity.processes.sandbox import PATIENCE
from gradparity.trace.ranks import RankDifferences, as_sentences, paired, ranks_apart
from gradparity.trace.report import trace_difference
from gradparity.trace.trace_file import read

MOST_RANKS = 8
"""The largest number of ranks on one machine."""

_HOUR, _MINUTES = 3600.0, 300.0
"""Seconds for a lookup, and for a rank to wait in it. No user code runs in a lookup, so nothing hangs."""


def check_on_ranks(
    name: str,
    precision: str,
    ranks: int,
    patience: float = PATIENCE,
    quiet: bool = False,
    kept: KeptRuns | None = None,
) -> CheckResult:
    """Run the loop ``name``, ``MODULE:FUNCTION``, on ``ranks`` ranks under the stress scenario, and look it up.

    Raises:
        UserError: if no verdict can be given, or a rank dies, raises, hangs or makes different collectives.
    """
    load_loop(name)
    start_fork_server(rank_worker.__name__, fault_lookup_on_ranks.__name__)

    def on_each(function: Callable[..., Any], *arguments: object) -> Any:
        return launch(function, ranks, *arguments, seconds=4 * patience, patience=patience)

    with TemporaryDirectory() as folder:
        references, loops = zip(*on_each(observe_both, name, precision, Path(folder)), strict=True)
        differences = _compare_ranks(Path(folder, "reference"), Path(folder, "loop"))
    references_again, again, graphs = zip(*on_each(observe_both_again, name, precision), strict=True)
    if references != references_again:
        raise UserError("the reference does not repeat itself on this machine, so no loop can be checked here")
    for rank, (one, other) in enumerate(zip(loops, again, strict=True)):
        if not one.end.finished:
            raise UserError(f"{name} did not finish on rank {rank}: {one.end}")
        if one != other:
            raise UserError(
                f"{name} does not repeat itself: a second run differs on rank {rank} at "
                f"{first_shown(one, other) or 'its end'}; draw random numbers only from torch"
            )
    if len({*(steps := [steps_made(loop) for loop in loops])}) > 1:
        made = ", ".join(f"{count} on rank {rank}" for rank, count in enumerate(steps))
        raise UserError(f"{name} makes different numbers of steps ({made}); make as many on every rank")
    first = differences.diverging[0] if differences.diverging else 0
    finding = Finding(Match.IDENTICAL)
    if loops != references:
        kept = kept or KeptRuns(use=False)
        memory = kept.of(merge_ranks([run.observations for run in references]), [], precision)
        given = (loops, references, precision, first, quiet, memory)
        ((finding, runs), *_) = launch(look_up_on_ranks, ranks, *given, seconds=_HOUR, patience=_MINUTES)
        memory.clear()
        memory |= runs
        kept.keep()
    if not finding.matched:
        with suppress(UserError):  # a loop that needs a scaler keeps its finding
            in_fp32 = on_each(observe_in_fp32, name)
            (faults, *_) = launch(
                match_with_rounding_on_ranks, ranks, loops, in_fp32, precision, seconds=_HOUR, patience=_MINUTES
            )
            if faults is not None:
                finding = finding.except_for_rounding(faults)
    errors = [error for error in on_each(error_of_rank, name) if error is not None]
    probe = Probe(
        f"{name} on {ranks} ranks",
        precision,
        merge_ranks([loop.observations for loop in loops], loops[first].trace),
        graphs=max(graphs, key=lambda each: each.steps_kept),
        oracle=max(errors, default=None),
    )
    return CheckResult(probe, finding, _explain(differences) if loops != references else "", ranks=differences)


def _compare_ranks(reference: Path, loop: Path) -> RankDifferences:
    """Compare the traces of the loop and the reference, rank by rank, with all tensors."""
    traces = [(read(ours), read(theirs)) for ours, theirs in paired(reference, loop)]
    return RankDifferences([trace_difference(*both) for both in traces], ranks_apart(traces))


def _explain(found: RankDifferences) -> str:
    """Return sentences on the ranks that diverge first, and on the faults that the loop was compared with."""
    lines = [] if found.parity else as_sentences(found)
    if not found.apart:
        lines.append("All ranks keep the same model.")
    if not found.parity:
        lines.append(found.ranks[found.diverging[0]].verdict.explanation)
    of_one = len(known_on_ranks()) - len(RANK_FAULTS)
    lines.append(
        f"The loop was compared with {len(RANK_FAULTS)} faults of several ranks and {of_one} of one. The other "
        f"{len(FAULTS) - of_one} faults of one rank do not show on several, or stop a loop."
    )
    return "\n".join(lines)
