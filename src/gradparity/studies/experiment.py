"""The frame of every script in ``experiments/``: its common options, its output and its exit code.

Tables and the answer go to standard output; with ``--quiet``, only the answer does. A progress bar goes to standard
error, and only if that is a terminal. So output that is piped or saved to a file holds the results and nothing else.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gradparity.cli.arguments import Parser
from gradparity.cli.exit_codes import exit_codes
from gradparity.studies.result import Result, say, show_result, where_to_see, write_result


@dataclass(frozen=True)
class Finished:
    """An experiment that has finished."""

    result: Result
    folder: Path
    """The folder of its TensorBoard files and exact figures."""
    tabs: str = "Text"
    """The tabs of TensorBoard to open."""


def parser(name: str, story: str | None) -> Parser:
    """Return a parser for the script ``name``, with the options of all scripts; ``story`` is the script's docstring."""
    made = Parser(f"experiments/{name}.py", description=story, formatter_class=RawDescriptionHelpFormatter)
    made.add_argument(
        "--output", type=Path, default=Path("runs"), help="folder for TensorBoard files and exact figures, default runs"
    )
    made.add_argument("--quiet", action="store_true", help="only the answer: no progress, no tables")
    return made


def run(name: str, parse: Callable[[], Any], experiment: Callable[[Any, Console], Finished]) -> int:
    """Parse the command line, run the experiment, then write and print its result.

    Args:
        name: of the script; error messages begin with it.
        parse: returns the parsed command line, which includes ``quiet``.
        experiment: called with the parsed command line and a console; errors go to standard error.

    Returns:
        0 if the result is as it should be, 1 if not, 2 for input that cannot be used, 130 if interrupted.
    """
    return exit_codes(name)(_run)(parse, experiment)


def _run(parse: Callable[[], Any], experiment: Callable[[Any, Console], Finished]) -> int:
    given = parse()
    console = Console(highlight=False, quiet=given.quiet)
    finished = experiment(given, console)
    write_result(finished.result, finished.folder)
    show_result(finished.result, console)
    say(Console(highlight=False), finished.result.sentence, "bold green" if finished.result.holds else "bold red")
    say(console, where_to_see(finished.folder, finished.tabs))
    return 0 if finished.result.holds else 1


def progress(quiet: bool = False) -> Progress:
    """Return a progress bar that shows the time left, and disappears when all is done."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(
        *columns, TextColumn("left"), console=Console(stderr=True), transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )  # fmt: skip
