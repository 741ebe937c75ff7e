"""The picture of a step for TensorBoard: black on white, so it looks the same on light and dark pages."""

from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from gradparity.auditing.finding import RuleVerdict
from gradparity.auditing.presentation.picture_parts import Cell, Lane, StepPicture
from gradparity.tensorboard.map_picture import shown
from gradparity.tensorboard.mpl_style import DPI, bold

_EVENT, _BAND, _GRID = "#2f6f9f", "#f0f3f6", "#d0d7de"
_COLORS = {RuleVerdict.WRONG: "#c62828", RuleVerdict.UNUSUAL: "#9a6700"}
_CHARACTER, _ROW, _NAMES = 0.085, 0.25, 1.75
"""Sizes in inches: the width of a character, the height of a row, the width of the names."""
_TEXT: dict[str, Any] = {"va": "center", "fontsize": 7.5, "parse_math": False}


def draw_step(picture: StepPicture) -> Figure:
    """Draw a step, as wide as its events need."""
    ends = list(accumulate((width * _CHARACTER for width in picture.widths), initial=_NAMES))
    heights = [(len(lane.rows) + (3 if lane.columns else 2)) * _ROW for lane in picture.lanes]
    width, height = max(ends[-1] + 0.1, 5.2), sum(heights) + 1.5 * _ROW
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.text(0.08, 0.75 * _ROW, shown(picture.title, 90), **_TEXT | {"fontsize": 9.5})
    top = 1.5 * _ROW
    for lane, high in zip(picture.lanes, heights, strict=True):
        _lane(axes, lane, ends, top)
        top += high
    return bold(figure)


def _lane(axes: Axes, lane: Lane, ends: list[float], top: float) -> None:
    axes.text(0.08, top + 0.5 * _ROW, shown(lane.title, 80), **_TEXT)
    first = top + (2 if lane.columns else 1) * _ROW
    for index, column in enumerate(lane.columns):
        left, right = ends[column.first], ends[column.last + 1]
        if index % 2 == 0:
            axes.add_patch(Rectangle((left, first), right - left, len(lane.rows) * _ROW, facecolor=_BAND))
        axes.text((left + right) / 2, first - 0.5 * _ROW, column.name, ha="center", **_TEXT)
    if lane.columns:
        axes.text(0.08, first - 0.5 * _ROW, "microbatch", **_TEXT)
    for index, row in enumerate(lane.rows):
        middle = first + (index + 0.5) * _ROW
        axes.plot([_NAMES, ends[-1]], [middle, middle], color=_GRID, linewidth=0.8, zorder=1)
        axes.text(0.08, middle, row, **_TEXT)
    for cell in lane.cells:
        _event(axes, cell, ends, first + lane.rows.index(cell.row) * _ROW)


def _event(axes: Axes, cell: Cell, ends: list[float], top: float) -> None:
    left, right = ends[cell.slot] + 0.02, ends[cell.slot + 1] - 0.02
    color = _COLORS[cell.verdict] if cell.code and cell.verdict is not None else _EVENT
    rounded = "round,pad=0,rounding_size=0.03"
    box = FancyBboxPatch((left, top + 0.03), right - left, _ROW - 0.06, boxstyle=rounded, facecolor=color, linewidth=0)
    axes.add_patch(box).set_zorder(2)
    if cell.collides and cell.verdict is not None:
        frame = Rectangle(
            (left - 0.02, top + 0.01), right - left + 0.04, _ROW - 0.02, fill=False, linestyle=(0, (3, 2))
        )
        frame.set(edgecolor=_COLORS[cell.verdict], linewidth=1.4, zorder=3)
        axes.add_patch(frame)
    axes.text((left + right) / 2, top + _ROW / 2, cell.words, ha="center", color="white", zorder=4, **_TEXT)
