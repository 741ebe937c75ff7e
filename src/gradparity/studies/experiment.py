"""The frame of every script in ``experiments/``: what it can be told, what it prints where, and its exit code.

Tables and the answer go to standard output; with ``--quiet`` the answer alone. A bar goes to standard error and only to
a terminal, so that what is piped or kept in a file is what was found, and nothing else.
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
    """What an experiment has found."""

    sentence: str
    holds: bool = True
    """Whether all is as it should be: the exit code is 0, or else 1."""
    folder: Path
    """Where its TensorBoard files are."""
    pages: str = "Text"
    """Which pages of TensorBoard to open."""


def parser(name: str, story: str | None) -> Parser:
    """For the script called ``name``, with what all of them take; ``story`` is its docstring."""
    made = Parser(f"experiments/{name}.py", description=story, formatter_class=RawDescriptionHelpFormatter)
    made.add_argument(
        "--output", type=Path, default=Path("runs"), help="folder for TensorBoard files and exact figures, default runs"
    )
    made.add_argument("--quiet", action="store_true", help="only the answer: no progress, no tables")
    return made


def run(name: str, parse: Callable[[], Any], experiment: Callable[[Any, Console], Answer]) -> int:
    """Parse, run the experiment, tell its answer and where to see it.

    Args:
        name: of the script, which stands before what is wrong.
        parse: gives what was said on the command line; among it ``quiet``.
        experiment: is given that, and the console to print tables to; it is told on standard error what went wrong.

    Returns:
        0 if what was found is as it should be, 1 if not, 2 for input that cannot be used, 130 if it was interrupted.
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
    """Print a sentence: broken between words on a terminal, on one line for a program."""
    console.print(sentence, style=style, markup=False, soft_wrap=not console.is_terminal)


def see(console: Console, folder: Path, pages: str) -> None:
    """Print the command that shows ``folder``, whole, so that it can be copied."""
    console.print(f"See it under {pages}: [bold]{tensorboard_command(folder)}[/]", soft_wrap=True)


def progress(quiet: bool = False) -> Progress:
    """A bar with the time that is left, which is gone when all is done."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(
        *columns, TextColumn("left"), console=Console(stderr=True), transient=True,
        disable=quiet or not sys.stderr.isatty(),
    )  # fmt: skip
