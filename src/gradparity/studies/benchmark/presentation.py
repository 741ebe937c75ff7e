"""Tables and pictures that all parts share; pictures are black on white, so they look the same on dark pages."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeAlias

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Column, Table

from gradparity.studies.benchmark.clock import Spread
from gradparity.studies.result import ANSWER_PAGE, Result, plain_table

Bar: TypeAlias = Callable[[str, int], Callable[[], object]]
"""Starts a progress bar with a name and a number of ticks; returns the function to call at each tick."""

FEW = 5
"""The most rounds of a part that takes long and varies little."""

BLUE, BROWN, GRAY, GREEN = "#4477aa", "#aa7700", "#555555", "#228833"
AIM = 1.05


def part_result(name: str, sentence: str, why: str, tables: Sequence[Table], figure: Figure, measured: Any) -> Result:
    """Return the result of the part ``name``, from tables, a reason, a picture, and dataclasses to record."""
    return Result(
        sentence=sentence,
        terminal=[*tables, f"{why}\n"],
        pages={ANSWER_PAGE: why},
        figures={f"1 glance/{name}": figure},
        records={f"{name}.jsonl": [asdict(one) for one in measured]},
    )


def cost_table(title: str, *columns: str) -> Table:
    """Return an empty table, with names aligned to the left and figures to the right."""
    first, *others = columns
    return plain_table(title, Column(first, no_wrap=True), *(Column(o, justify="right", no_wrap=True) for o in others))


def median_and_quartiles(found: Spread, digits: int = 2) -> str:
    """Format the median, and the two quartiles, between which half of the figures lie."""
    return f"{found.median:.{digits}f} {found.low:.{digits}f}–{found.high:.{digits}f}"


def millions(parameters: int) -> str:
    """Format a number of parameters in millions, with one decimal."""
    return f"{parameters / 1e6:.1f}M"


def panels_with(title: str, panels: int) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with ``panels`` panels side by side."""
    made = Figure(figsize=(6.5 * panels, 4.5), dpi=110, facecolor="white", layout="constrained")
    made.suptitle(title)
    axes = list(made.subplots(1, panels, squeeze=False)[0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="x", color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
    return made, axes


def draw_spreads(axes: Axes, names: Sequence[str], found: Sequence[Spread], colors: Sequence[str]) -> None:
    """Draw a point for each median, from top to bottom, with a line from quartile to quartile."""
    for row, (one, color) in enumerate(zip(found, colors, strict=True)):
        axes.plot([one.low, one.high], [row, row], color=color, linewidth=2)
        axes.plot([one.median], [row], "o", color=color)
        axes.annotate(
            f"{one.median:.2f}", (one.median, row), (0, 6), textcoords="offset points", ha="center", fontsize=8
        )
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.5, -0.7)


def draw_aim(axes: Axes, at: Literal["upper right", "lower right"]) -> None:
    """Draw a line at the ratio that watching should stay below."""
    axes.axvline(AIM, color=GREEN, linewidth=1, linestyle="dashed", label=f"aim: {AIM}")
    axes.legend(frameon=False, loc=at)
