"""The command ``gradparity claims``: check common claims about autograd.grad and .backward() on this machine."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from gradparity.cli.arguments import Parser
from gradparity.cli.choose_by_name import add_choice, choose
from gradparity.errors import UserError
from gradparity.studies.claims import CLAIMS, name_of
from gradparity.studies.claims.result import RECORDS, claims_markdown, claims_result
from gradparity.studies.experiment import progress
from gradparity.studies.result import say, show_result, to_json, where_to_see, write_result
from gradparity.tensorboard import new_folder


def main(arguments: Sequence[str]) -> int:
    """Check the claims, and print them with their verdicts.

    Returns:
        Always 0, whatever the verdicts.

    Raises:
        UserError: if an argument names an unknown claim, an unknown format, or a folder that cannot be written.
    """
    claims = {name_of(claim): claim for claim in CLAIMS}
    parser = Parser(prog="gradparity claims", description="Check what is often said of autograd.grad and .backward().")
    parser.add_argument("--format", choices=("table", "json", "markdown"), default="table", help="default: table")
    add_choice(parser, "--only", ", ".join(claims))
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write a TensorBoard text page there as well")
    parser.add_argument("--quiet", action="store_true", help="only the answer: no progress, no table")
    given = parser.parse_args(arguments)
    chosen = choose("--only", given.only, claims)
    try:
        folder = new_folder(given.output / "claims") if given.output else None
    except OSError as error:
        raise UserError(f"{error}; choose a folder that can be written with --output") from error

    torch.set_num_threads(1)
    with progress(given.quiet) as bar:
        examined = [(claims[name], claims[name]()) for name in bar.track(chosen, description="claims")]
    result = claims_result(examined)
    if folder:
        write_result(result, folder)
    if given.format == "json":
        print(to_json(result.records[RECORDS]))
        return 0
    if given.format == "markdown":
        print(claims_markdown(examined))
        return 0
    console = Console(highlight=False, quiet=given.quiet)
    show_result(result, console)
    say(Console(highlight=False), result.sentence, style="bold")
    if folder:
        say(console, where_to_see(folder, "Text"))
    return 0
