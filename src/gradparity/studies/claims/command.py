"""The command ``gradparity claims``: check common claims about autograd.grad and .backward() on this machine."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from gradparity.cli.arguments import Parser
from gradparity.errors import UserError
from gradparity.studies import experiment
from gradparity.studies.claims import CLAIMS, Claim, Evidence, name_of, report
from gradparity.tensorboard import new_folder, write_pages


def main(arguments: Sequence[str]) -> int:
    """Check the claims, and print them with their verdicts.

    Returns:
        Always 0, whatever the verdicts.

    Raises:
        UserError: if an argument names an unknown claim, an unknown format, or a folder that cannot be written.
    """
    parser = Parser(prog="gradparity claims", description="What is said of autograd.grad and .backward(), examined.")
    parser.add_argument("--format", choices=("table", "json", "markdown"), default="table", help="default: table")
    parser.add_argument("--only", nargs="+", metavar="ID", help="examine these claims alone")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write a TensorBoard text page there as well")
    parser.add_argument("--quiet", action="store_true", help="only the answer: no progress, no table")
    given = parser.parse_args(arguments)
    chosen = claims_named(given.only)
    try:
        folder = new_folder(given.output / "claims") if given.output else None
    except OSError as error:
        raise UserError(f"{error}; choose a folder that can be written with --output") from error

    torch.set_num_threads(1)
    with experiment.progress(given.quiet) as progress:
        examined = [(claim, claim()) for claim in progress.track(chosen, description="claims")]
    if folder:
        write_pages(folder, {"1 answer": report.page(examined)})
    if given.format == "json":
        print(report.as_json(examined))
    elif given.format == "markdown":
        print(report.markdown(examined))
    else:
        show(examined, folder, Console(highlight=False, quiet=given.quiet))
    return 0


def claims_named(names: Sequence[str] | None) -> list[Claim]:
    """Return the claims called ``names``, in reading order; without names, all of them.

    Raises:
        UserError: if a name is of no claim.
    """
    known = {name_of(claim): claim for claim in CLAIMS}
    for name in names or ():
        if name not in known:
            raise UserError(f"--only names no claim {name!r}; choose from {', '.join(known)}")
    return [claim for name, claim in known.items() if names is None or name in names]


def show(examined: Sequence[tuple[Claim, Evidence]], folder: Path | None, console: Console) -> None:
    """Print the table, the answer, and the page's folder. The answer is printed even if ``console`` is quiet."""
    console.print(report.table(examined))
    experiment.say(Console(highlight=False), report.answer(examined), style="bold")
    if folder:
        experiment.see(console, folder, "Text")
