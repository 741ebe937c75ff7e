"""``gradparity diff``: the first place at which two recorded loops diverge."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from gradparity.cli.arguments import Parser
from gradparity.errors import UserError
from gradparity.parity.verdict import Verdict
from gradparity.trace.events import Trace
from gradparity.trace.matching_names import named_alike, parameters
from gradparity.trace.ranks import (
    RankDifferences,
    paired,
    print_rank_differences,
    rank_differences_as_json,
    ranks_apart,
)
from gradparity.trace.report import (
    TraceDifference,
    TraceOutcome,
    difference_as_json,
    print_difference,
    sentences,
    trace_difference,
)
from gradparity.trace.trace_file import read


def main(arguments: Sequence[str]) -> int:
    """Compare two traces; return 0 if everything is the same, 1 if not, 2 if that cannot be judged."""
    parser = Parser("gradparity diff", description="Compare two recordings, and report the first difference.")
    parser.add_argument("reference", type=Path, help="a folder that gradparity.record has written")
    parser.add_argument("candidate", type=Path, help="the folder to compare with it")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="for people, or for programs")
    parser.add_argument("--tensorboard", type=Path, metavar="FOLDER", help="also write the result for TensorBoard")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # many small operations: more threads mostly wait for each other, and keep cores busy
    traces = [(read(ours), read(theirs)) for ours, theirs in paired(given.reference, given.candidate)]
    found = [trace_difference(reference, candidate) for reference, candidate in traces]
    together = RankDifferences(found, ranks_apart(traces)) if len(found) > 1 else None
    if given.format == "json":
        print(json.dumps(rank_differences_as_json(together) if together else difference_as_json(found[0])))
    elif together:
        print_rank_differences(together, Console(highlight=False))
    else:
        print_difference(found[0], Console(highlight=False))
    if given.tensorboard is not None:
        try:
            for rank, (reference, candidate) in enumerate(traces):
                to_board(given.tensorboard / f"rank{rank}" if together else given.tensorboard, reference, candidate)
        except OSError as error:
            raise UserError(f"{given.tensorboard} cannot be used ({error.strerror}); name a new folder") from None
    if any(one.outcome == TraceOutcome.NOT_COMPARABLE for one in found) and not any(one.verdict.first for one in found):
        return 2
    return 0 if all(one.parity for one in found) else 1


def to_board(folder: Path, reference: Trace, candidate: Trace, title: str = "diff") -> TraceDifference:
    """Compare two traces, and write the result to TensorBoard, under tags with ``title``."""
    from gradparity.tensorboard import Board
    from gradparity.tensorboard.divergence_map import DivergenceMap
    from gradparity.tensorboard.layout import EVENTS_PAGE

    verdict, divergence_map = Verdict(), DivergenceMap(parameters(named_alike(reference, candidate)[0]))
    with Board(folder, title, verdict, divergence_map) as board:
        found = trace_difference(reference, candidate, board.add_comparison, verdict)
        board.add_page(EVENTS_PAGE, "\n\n".join(sentences(found)))
    return found
