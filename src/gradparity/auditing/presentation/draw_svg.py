"""The picture of a step as SVG, for an HTML page whose style sheet has the colors of light and dark."""

from collections.abc import Iterator
from html import escape
from itertools import accumulate

from gradparity.auditing.presentation.picture_parts import Cell, Lane, Row, StepPicture

STYLE = """
svg.step { font: 11px ui-monospace, monospace; fill: var(--text); display: block; }
svg.step .name { font-family: system-ui, sans-serif; }
svg.step .title { font-weight: bold; }
svg.step .column { fill: var(--band); }
svg.step .rule { stroke: var(--grid); }
svg.step .event { fill: var(--event); }
svg.step .wrong { fill: var(--wrong); }
svg.step .unusual { fill: var(--unusual); }
svg.step .frame { fill: none; stroke-width: 2; stroke-dasharray: 4 3; }
svg.step .frame.wrong { stroke: var(--wrong); }
svg.step .frame.unusual { stroke: var(--unusual); }
svg.step .inside { fill: var(--inside); text-anchor: middle; }
svg.step .middle { text-anchor: middle; }
"""

_CHARACTER, _ROW, _HEAD, _NAMES, _PADDING = 7.2, 26, 40, 124, 8
"""Sizes in pixels: the width of a character, the heights of a row and of a lane's head, the width of the names."""


def step_svg(picture: StepPicture) -> str:
    """Return the picture of a step as an ``svg`` element. The user's source is in it as text, and nothing can run."""
    ends = list(accumulate((width * _CHARACTER for width in picture.widths), initial=float(_NAMES)))
    width = ends[-1] + _PADDING
    parts: list[str] = []
    top = 0.0
    for lane in picture.lanes:
        parts += _lane(lane, ends, top)
        top += _head(lane) + len(lane.rows) * _ROW + 2 * _PADDING
    head = f'<svg class="step" role="img" width="{width:.0f}" height="{top:.0f}" viewBox="0 0 {width:.0f} {top:.0f}">'
    return "\n".join([head, f"<title>{escape(picture.title)}</title>", *parts, "</svg>"])


def _head(lane: Lane) -> int:
    return _HEAD if lane.columns else _HEAD // 2


def _lane(lane: Lane, ends: list[float], top: float) -> Iterator[str]:
    yield f'<text class="name title" x="0" y="{top + 14:.0f}">{escape(lane.title)}</text>'
    rows = lane.rows
    first = top + _head(lane)
    last = first + len(rows) * _ROW
    for index, column in enumerate(lane.columns):
        left, right = ends[column.first], ends[column.last + 1]
        if index % 2 == 0:
            yield _box("column", left, first, right - left, last - first, 0)
        yield f'<text class="name middle" x="{(left + right) / 2:.1f}" y="{first - 6:.0f}">{escape(column.name)}</text>'
    if lane.columns:
        yield f'<text class="name" x="0" y="{first - 6:.0f}">microbatch</text>'
    for index, row in enumerate(rows):
        middle = first + (index + 0.5) * _ROW
        yield f'<line class="rule" x1="{_NAMES}" x2="{ends[-1]:.0f}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
        yield f'<text class="name" x="0" y="{middle + 4:.1f}">{escape(row)}</text>'
    for cell in lane.cells:
        yield from _event(cell, rows, ends, first)


def _event(cell: Cell, rows: list[Row], ends: list[float], first: float) -> Iterator[str]:
    left, right = ends[cell.slot] + 2, ends[cell.slot + 1] - 2
    top = first + rows.index(cell.row) * _ROW + 3
    kind = str(cell.verdict) if cell.code else "event"
    where = f"{cell.line}: {cell.line.source}" if cell.line.number else str(cell.row)
    yield f"<g><title>{escape(where)}</title>"
    yield _box(kind, left, top, right - left, _ROW - 6, 3)
    if cell.collides:
        yield _box(f"frame {cell.verdict}", left - 2, top - 2, right - left + 4, _ROW - 2, 4)
    if cell.words:
        yield f'<text class="inside" x="{(left + right) / 2:.1f}" y="{top + 14:.1f}">{escape(cell.words)}</text>'
    yield "</g>"


def _box(kind: str, left: float, top: float, width: float, height: float, corner: int) -> str:
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{corner}"/>'
    )
