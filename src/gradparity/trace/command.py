"""``gradparity diff``: where two recorded loops first part."""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gradparity.arguments import Parser
from gradparity.errors import UserError
from gradparity.trace.diff import compare_traces
from gradparity.trace.file import read
from gradparity.trace.names import named_alike, parameters
from gradparity.trace.told import as_json, difference, sentences, show


def main(arguments: Sequence[str]) -> int:
    """Compare two traces; 0 if all is the same, 1 if not."""
    parser = Parser("gradparity diff", description="Where do two recorded training loops first part?")
    parser.add_argument("reference", type=Path, help="a folder that gradparity.record has written")
    parser.add_argument("candidate", type=Path, help="another one")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="for people, or for programs")
    parser.add_argument("--tensorboard", type=Path, metavar="FOLDER", help="write what was found there as well")
    given = parser.parse_args(arguments)
    reference, candidate = read(given.reference), read(given.candidate)
    found = difference(reference, candidate)
    if given.format == "json":
        print(json.dumps(as_json(found)))
    else:
        show(found, Console(highlight=False))
    if given.tensorboard is not None:
        from gradparity.board import Board
        from gradparity.board.layout import EVENTS_PAGE

        try:
            with Board(given.tensorboard, "diff", parameters(named_alike(reference, candidate)[0])) as board:
                for comparison in compare_traces(reference, candidate):
                    board.compared(comparison)
                board.told(EVENTS_PAGE, "\n\n".join(sentences(found)))
        except OSError as error:
            raise UserError(f"{given.tensorboard} cannot be used ({error.strerror}); name a new folder") from None
    return 0 if found.parity else 1
