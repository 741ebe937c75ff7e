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

from gradparity.cli.arguments import Parser, exits
from gradparity.tensorboard import tensorboard_command


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The result of an experiment."""

    sentence: str
    holds: bool = True
    """True if the result is as it should be: exit code 0, else 1."""
    folder: Path
    """The folder of its TensorBoard files."""
    pages: str = "Text"
    """The pages of TensorBoard to open."""


def parser(name: str, story: str | None) -> Parser:
    """Return a parser for the script ``name``, with the options of all scripts; ``story`` is the script's docstring."""
    made = Parser(f"experiments/{name}.py", description=story, formatter_class=RawDescriptionHelpFormatter)
    made.add_argument(
        "--output", type=Path, default=Path("runs"), help="folder for TensorBoard files and exact figures, default runs"
    )
    made.add_argument("--quiet", action="store_true", help="only the answer: no progress, no tables")
    return made


def run(name: str, parse: Callable[[], Any], experiment: Callable[[Any, Console], Answer]) -> int:
    """Parse the command line, run the experiment, and print its answer and the command that shows it.

    Args:
        name: of the script; error messages begin with it.
        parse: returns the parsed command line, which includes ``quiet``.
        experiment: called with the parsed command line and a console for tables; errors go to standard error.

    Returns:
        0 if the result is as it should be, 1 if not, 2 for input that cannot be used, 130 if interrupted.
    """
    return exits(name)(_told)(parse, experiment)


def _told(parse: Callable[[], Any], experiment: Callable[[Any, Console], Answer]) -> int:
    given = parse()
    answer = experiment(given, Console(highlight=False, quiet=given.quiet))
    console = Console(highlight=False)
    say(console, answer.sentence, style="bold green" if answer.holds else "bold red")
    if not given.quiet:
        see(console, answer.folder, answer.pages)
    return 0 if answer.holds else 1


def say(console: Console, sentence: str, style: str = "") -> None:
    """Print a sentence: wrapped between words on a terminal, on one line for a program."""
    console.print(sentence, style=style, markup=False, soft_wrap=not console.is_terminal)


def see(console: Console, folder: Path, pages: str) -> None:
    """Print the command that shows ``folder``, on one line, so that it can be copied."""
    console.print(f"See it under {pages}: [bold]{tensorboard_command(folder)}[/]", soft_wrap=True)


def progress(quiet: bool = False) -> Progress:
    """Return a progress bar that shows the time left, and disappears when all is done."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(
        *columns, TextColumn("left"), console=Console(stderr=True), transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )  # fmt: skip
