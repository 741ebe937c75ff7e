"""The matrix as a heatmap, tasks across and the values of all other axes down, for the terminal and TensorBoard.

Each square stands for many cells and shows the most telling of their outcomes: the first in :class:`CellOutcome`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from rich.table import Table

from gradparity.studies.matrix.cell import AXES
from gradparity.studies.matrix.run import CellOutcome, CellResult
from gradparity.tensorboard.mpl_style import CARD_SIZE, DPI, bold

Row: TypeAlias = tuple[str, Any]
"""An axis and one of its values."""
Squares: TypeAlias = dict[tuple[Row, str], Counter[CellOutcome]]
"""The outcomes by row and task."""

SYMBOLS = {CellOutcome.DIFFERENT: "✗", CellOutcome.RAISED: "!", CellOutcome.IDENTICAL: "✓", CellOutcome.REFUSED: "–"}
STYLES = {
    CellOutcome.DIFFERENT: "bold white on red",
    CellOutcome.RAISED: "bold black on yellow",
    CellOutcome.IDENTICAL: "green",
    CellOutcome.REFUSED: "dim",
}
_COLORS = {
    # From Okabe and Ito's colour-blind-safe palette; black letters are legible on each.
    CellOutcome.DIFFERENT: "#D55E00",
    CellOutcome.RAISED: "#F0E442",
    CellOutcome.IDENTICAL: "#56B4E9",
    CellOutcome.REFUSED: "#DDDDDD",
}
HEATMAP_LEGEND = "Each square shows the most telling of its cells: " + ", ".join(
    f"[{STYLES[outcome]}]{symbol}[/] {outcome}" for outcome, symbol in SYMBOLS.items()
)
SIDE_BY_SIDE = 5
"""The most tasks whose names fit side by side in 80 columns; with more, names are written downwards."""


def squares(results: Iterable[CellResult]) -> Squares:
    """Count the cells of each outcome, for every task and every value of another axis."""
    found: Squares = defaultdict(Counter)
    for result in results:
        for axis in AXES:
            if axis != "task":
                found[(axis, getattr(result.cell, axis)), result.cell.task][result.outcome] += 1
    return found


def rows_and_tasks(found: Squares) -> tuple[list[Row], list[str]]:
    """Return the rows and the tasks to show, in their order.

    Rows are the values of axes with at least two values present; if there is no such axis, those of precision.
    """
    seen, tasks = {row for row, _ in found}, {task for _, task in found}
    rows = [(axis, value) for axis, values in AXES.items() for value in values if (axis, value) in seen]
    often = Counter(axis for axis, _ in rows)
    shown = {axis for axis in often if often[axis] > 1} or {"precision"}
    return [row for row in rows if row[0] in shown], [task for task in AXES["task"] if task in tasks]


def most_telling(outcomes: Counter[CellOutcome]) -> CellOutcome | None:
    """Return the outcome that a square shows; ``None`` if it holds no cell."""
    return next((outcome for outcome in CellOutcome if outcomes[outcome]), None)


def terminal_heatmap(results: Sequence[CellResult]) -> Table:
    """Return the heatmap for a terminal, with a symbol in each square."""
    found = squares(results)
    rows, tasks = rows_and_tasks(found)
    wide = len(tasks) <= SIDE_BY_SIDE
    grid = Table(padding=(0, 1) if wide else 0)
    grid.add_column("", vertical="bottom", no_wrap=True)
    for task in tasks:
        grid.add_column(task if wide else "\n".join(task), justify="center", vertical="bottom")
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        marks = (most_telling(found.get((row, task), Counter())) for task in tasks)
        colored = (f"[{STYLES[mark]}]{SYMBOLS[mark]}[/]" if mark else "" for mark in marks)
        grid.add_row(row_name(row), *colored, end_section=after is not None and after[0] != row[0])
    return grid


def draw_counts(results: Sequence[CellResult]) -> Figure:
    """Draw the number of cells by task and outcome, for a card of TensorBoard's first page."""
    counts = Counter((result.cell.task, result.outcome) for result in results)
    tasks = [task for task in AXES["task"] if any((task, outcome) in counts for outcome in CellOutcome)]
    made = Figure(figsize=CARD_SIZE, dpi=DPI, facecolor="white", layout="constrained")
    axes = made.subplots()
    before = [0] * len(tasks)
    for outcome in CellOutcome:
        numbers = [counts[task, outcome] for task in tasks]
        axes.barh(range(len(tasks)), numbers, left=before, color=_COLORS[outcome], height=0.85)
        before = [done + more for done, more in zip(before, numbers, strict=True)]
    axes.set_yticks(range(len(tasks)), tasks)
    axes.invert_yaxis()
    axes.tick_params(length=2, labelsize=7.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    return _finished(made, results)


def draw_heatmap(results: Sequence[CellResult]) -> Figure:
    """Draw the heatmap for TensorBoard; a square has a symbol unless its outcome is "identical".

    The background is white, so it looks the same in TensorBoard's light and dark modes.
    """
    found = squares(results)
    rows, tasks = rows_and_tasks(found)
    outcomes = list(CellOutcome)
    made = Figure(figsize=(4.8, 2 + 0.125 * len(rows)), dpi=DPI, facecolor="white", layout="constrained")
    axes = made.subplots()
    codes = [[float("nan")] * len(tasks) for _ in rows]
    for y, row in enumerate(rows):
        for x, task in enumerate(tasks):
            if mark := most_telling(found.get((row, task), Counter())):
                codes[y][x] = outcomes.index(mark)
                shown = "" if mark == CellOutcome.IDENTICAL else SYMBOLS[mark]
                axes.text(x, y, shown, ha="center", va="center", fontsize=7.5, color="black")
    axes.imshow(codes, ListedColormap([_COLORS[o] for o in outcomes]), vmin=0, vmax=len(outcomes) - 1, aspect="auto")
    axes.set_xticks(range(len(tasks)), tasks, rotation=90)
    axes.set_yticks(range(len(rows)), [row_name(row) for row in rows])
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, labelsize=7.5)
    for y, (row, after) in enumerate(pairwise(rows)):
        axes.axhline(y + 0.5, color="black" if row[0] != after[0] else "white", linewidth=1)
    for x, _ in enumerate(tasks[1:]):
        axes.axvline(x + 0.5, color="white", linewidth=1)
    return _finished(made, results)


def _finished(made: Figure, results: Sequence[CellResult]) -> Figure:
    counts = Counter(result.outcome for result in results)
    ran = len(results) - counts[CellOutcome.REFUSED]
    head = f"{counts[CellOutcome.IDENTICAL]:,} of {ran:,} cells are identical both ways"
    made.suptitle(head, fontsize=10.5, x=0.01, ha="left")
    patches = [Patch(color=_COLORS[outcome], label=f"{SYMBOLS[outcome]} {outcome}") for outcome in CellOutcome]
    made.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=7.5)
    return bold(made)


def row_name(row: Row) -> str:
    """Return a row's name. A number of microbatches or a kind of clipping is shown with its axis."""
    axis, value = row
    return {"k": f"K = {value}", "clip": f"clip: {value}"}.get(axis, str(value))
