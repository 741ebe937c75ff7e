"""The result of a study, and the one way to show it: on the terminal, in TensorBoard, and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from gradparity.errors import writing
from gradparity.tensorboard import tensorboard_command
from gradparity.tensorboard.events import Events
from gradparity.tensorboard.pages import ANSWER_RUN

ANSWER_PAGE = "1 answer"
"""The tag of the page that opens with the answer."""

Curve: TypeAlias = Mapping[int, float]
"""Values by step."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a study, or of a part of one."""

    sentence: str
    """The answer."""
    holds: bool = True
    """True if the result is as it should be."""
    terminal: Sequence[Table | Text | str] = ()
    """Tables and paragraphs, in order."""
    pages: Mapping[str, str] = field(default_factory=dict)
    """Text pages of TensorBoard, Markdown by tag. The answer is put in front of :data:`ANSWER_PAGE`."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """Pictures of TensorBoard, by tag."""
    curves: Mapping[str, Mapping[str, Curve]] = field(default_factory=dict)
    """Plots of TensorBoard, by run and tag."""
    records: Mapping[str, Any] = field(default_factory=dict)
    """Exact figures, by file name: ``.json`` holds one document, ``.jsonl`` a line for each element of a list."""


def show_result(result: Result, console: Console) -> None:
    """Print the tables and paragraphs of ``result``."""
    for item in result.terminal:
        if isinstance(item, Table):
            console.print(item)
        else:
            say(console, item)


def write_result(result: Result, folder: Path, run: str = ANSWER_RUN) -> None:
    """Write the TensorBoard files and records of ``result`` to ``folder``; pages and figures are in the run ``run``.

    Raises:
        DiskError: if a file cannot be written.
    """
    if result.pages or result.figures:
        with Events(folder / run) as events:
            for tag, figure in result.figures.items():
                events.add_figure(tag, figure, close=False)
            for tag, page in {ANSWER_PAGE: "", **result.pages}.items():
                events.add_text(tag, f"**{result.sentence}**\n\n{page}" if tag == ANSWER_PAGE else page)
    for name, tags in result.curves.items():
        with Events(folder / name) as events:
            for tag, curve in tags.items():
                for step, value in curve.items():
                    events.add_scalar(tag, value, step)
    for name, content in result.records.items():
        with writing(folder / name):
            (folder / name).write_text(to_json(content, in_lines=name.endswith(".jsonl")))


def to_json(content: Any, in_lines: bool = False) -> str:
    """Return ``content`` as one JSON document, or a list ``in_lines``, one element on each."""
    if in_lines:
        return "".join(f"{json.dumps(element)}\n" for element in content)
    return json.dumps(content, indent=2, ensure_ascii=False)


def say(console: Console, sentence: str | Text, style: str = "") -> None:
    """Print a sentence: wrapped between words on a terminal, on one line for a program."""
    in_one_line = isinstance(sentence, Text) and bool(sentence.no_wrap)
    console.print(sentence, style=style, markup=False, soft_wrap=in_one_line or not console.is_terminal)


def where_to_see(folder: Path, tabs: str) -> Text:
    """Return the command that opens ``folder`` in TensorBoard, on one line, so that it can be copied."""
    return Text.assemble(f"See it under {tabs}: ", (tensorboard_command(folder), "bold"), no_wrap=True)


def plain_table(title: str, *columns: str | Column) -> Table:
    """Return an empty table without vertical lines."""
    return Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def check_mark(holds: bool) -> str:
    """Return a green ✓ or a red ✗, in rich's markup."""
    return "[green]✓[/]" if holds else "[red]✗[/]"
