"""``gradparity check --nproc``: a training loop on several ranks, looked up among faults of one rank and of several.

There is one verdict for all ranks. If a rank does not finish the loop, one sentence reports it, in bounded time.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gradparity.check.lookup import Answer, Finding, first_shown
from gradparity.check.observe import Observed
from gradparity.check.rank_lookup import in_a_row, known_on_ranks, like_which_on_ranks, look_up_on_ranks
from gradparity.check.rank_worker import error_by_oracle, see, see_again, see_in_fp32
from gradparity.check.report import Checked
from gradparity.check.user_loop import load
from gradparity.errors import UserError
from gradparity.faults import FAULTS
from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.processes.launch import launch
from gradparity.processes.sandbox import PATIENCE
from gradparity.trace.events import Event
from gradparity.trace.file import read
from gradparity.trace.ranks import RankDifferences, as_sentences, paired, ranks_apart
from gradparity.trace.report import trace_difference

MOST = 8
"""The largest number of ranks on one machine."""

HOUR, MINUTES = 3600.0, 300.0
"""Seconds for a lookup, and for a rank to wait in it. No user code runs in a lookup, so nothing hangs."""


def check_on_ranks(name: str, precision: str, ranks: int, patience: float = PATIENCE) -> Checked:
    """Run the loop ``name``, ``MODULE:FUNCTION``, on ``ranks`` ranks under the stress scenario, and look it up.

    Raises:
        UserError: if no verdict can be given, or a rank dies, raises, hangs or makes different collectives.
    """
    load(name)

    def on_each(function: Callable[..., Any], *arguments: object) -> Any:
        return launch(function, ranks, *arguments, seconds=4 * patience, patience=patience)

    with TemporaryDirectory() as folder:
        references, loops = zip(*on_each(see, name, precision, Path(folder)), strict=True)
        differences = compared(Path(folder, "reference"), Path(folder, "loop"))
    references_again, again, graphs = zip(*on_each(see_again, name, precision), strict=True)
    if references != references_again:
        raise UserError("the reference does not repeat itself on this machine, so nothing can be said of a loop")
    for rank, (one, other) in enumerate(zip(loops, again, strict=True)):
        if one.error:
            raise UserError(f"{name} did not come to its end on rank {rank}: {one.error}")
        if one != other:
            raise UserError(
                f"{name} does not repeat itself: run twice, rank {rank} differs at "
                f"{first_shown(one, other) or 'no place'}; let it draw random numbers from torch only"
            )
    if len({*(steps := [steps_of(seen) for seen in loops])}) > 1:
        made = ", ".join(f"{count} on rank {rank}" for rank, count in enumerate(steps))
        raise UserError(f"{name} does not make as many steps on each rank ({made}); let all make as many")
    first = differences.diverging[0] if differences.diverging else 0
    finding = Finding(Answer.IDENTICAL)
    if loops != references:
        (finding, *_) = launch(
            look_up_on_ranks, ranks, loops, references, precision, first, seconds=HOUR, patience=MINUTES
        )
    if finding.answer in (Answer.CLOSEST, Answer.UNKNOWN):
        with suppress(UserError):  # a loop that cannot do without a scaler keeps the answer that it has
            plain = on_each(see_in_fp32, name)
            (alike, *_) = launch(like_which_on_ranks, ranks, plain, loops, precision, seconds=HOUR, patience=MINUTES)
            if alike is not None:
                finding = replace(finding, answer=Answer.ROUNDING, faults=alike, parted=None, also_here=())
    errors = [error for error in on_each(error_by_oracle, name) if error is not None]
    return Checked(
        f"{name} on {ranks} ranks",
        precision,
        in_a_row([seen.looks for seen in loops], loops[first].trace),
        finding,
        explained(differences) if loops != references else "",
        max(graphs, key=lambda each: each.kept),
        max(errors, default=None),
        ranks=differences,
    )


def steps_of(seen: Observed) -> int:
    """Return the number of steps that a rank has made or skipped."""
    return sum(record.event in (Event.STEP, Event.SKIP) for record in seen.trace.records)


def compared(reference: Path, loop: Path) -> RankDifferences:
    """Compare the traces of the loop and the reference, rank by rank, with all tensors."""
    traces = [(read(ours), read(theirs)) for ours, theirs in paired(reference, loop)]
    return RankDifferences([trace_difference(*both) for both in traces], ranks_apart(traces))


def explained(found: RankDifferences) -> str:
    """Return sentences on which ranks diverge first, and how, and among how many faults the loop was looked up."""
    lines = [] if found.parity else as_sentences(found)
    if not found.apart:
        lines.append("The ranks stay one model.")
    if not found.parity:
        lines.append(found.ranks[found.diverging[0]].verdict.explanation)
    of_one = len(known_on_ranks()) - len(RANK_FAULTS)
    lines.append(
        f"It was looked up among {len(RANK_FAULTS)} faults of several ranks and {of_one} of one. The other "
        f"{len(FAULTS) - of_one} of one rank do not show on several, or stop a loop."
    )
    return "\n".join(lines)
