"""The divergence map as a picture: steps across, parameters down in the order of the network, a panel for each phase.

It has a white background and black text, so it looks the same on TensorBoard's light and dark pages.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from gradparity.tensorboard.divergence_map import IDENTICAL, NOT_IN_BITS, DivergenceMap
from gradparity.tensorboard.mpl_style import CARD_SIZE, DPI, bold, power_of_ten
from gradparity.training import Phase

SAME = "#d7ebe4"
OTHERWISE = "#3aa0ff"
GROUND = "#ffffff"
HEAD: dict[str, Any] = {"fontsize": 10.5, "fontweight": "bold", "x": 0.01, "ha": "left", "parse_math": False}
"""Without math, since a name may contain dollar signs."""
HATCH = "#d8d8d8"
RING: dict[str, Any] = {"marker": "o", "markersize": 8, "fillstyle": "none", "color": "#e6007e", "markeredgewidth": 2}
DISTANCES = ListedColormap(colormaps["inferno_r"](np.linspace(0.12, 0.95, 256)))
"""From yellow for one ULP to black; the green of :data:`SAME` and the blue of :data:`OTHERWISE` are not among them."""
_SCALE_ENDS = {True: 1e10, False: 1e20}
"""The end of the scale, the same in every picture: above any distance in fp32, or, if that is too low, in fp64."""
MOST_NAMES = 45
"""If there are more rows, only every second, third, ... row is named."""


def draw_overview(divergence_map: DivergenceMap, sentence: str) -> Figure:
    """Draw all phases side by side, for a card of 350 × 200 pixels: large text, and no parameter names."""
    figure = Figure(figsize=CARD_SIZE, dpi=DPI, facecolor=GROUND)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.02, wspace=0.02))
    panels = figure.subplots(1, len(Phase), sharey=True)
    for phase, axes in zip(Phase, panels, strict=True):
        _draw_panel(axes, divergence_map, phase)
        axes.set_title(phase.name.lower(), fontsize=8)
        axes.set_yticks([])
        axes.set_xticks(*_ends(divergence_map))
        axes.get_xticklabels()[0].set_horizontalalignment("left")
        axes.get_xticklabels()[-1].set_horizontalalignment("right")
    panels[0].set_ylabel("parameters, input to output", fontsize=8)
    panels[len(panels) // 2].set_xlabel("optimizer step", fontsize=8)
    figure.suptitle(textwrap.fill(shown(sentence, 250), 58), **HEAD)
    _add_legend(figure, panels, divergence_map, "right", ringed=divergence_map.first is not None)
    return bold(figure)


def draw_phase(divergence_map: DivergenceMap, phase: Phase, title: str) -> Figure:
    """Draw one phase, with the names of its rows."""
    rows = divergence_map.rows
    named = range(0, len(rows), math.ceil(len(rows) / MOST_NAMES))
    figure = Figure(figsize=(4.8, 1.8 + 0.125 * len(named)), dpi=DPI, facecolor=GROUND, layout="constrained")
    axes = figure.subplots()
    _draw_panel(axes, divergence_map, phase)
    axes.set_yticks(named, [shown(rows[row], 60) for row in named], fontsize=7.5, parse_math=False)
    axes.set_xlabel("optimizer step", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(lambda column, _: f"{column * divergence_map.stride:,.0f}")
    figure.suptitle(title, **HEAD)
    _add_legend(
        figure,
        [axes],
        divergence_map,
        "bottom",
        ringed=divergence_map.first is not None and divergence_map.first[0] == phase,
    )
    return bold(figure)


def _draw_panel(axes: Axes, divergence_map: DivergenceMap, phase: Phase) -> None:
    """Draw the map of one phase: a ring marks the first difference if it is here, hatching what was not compared."""
    found = divergence_map.map(phase)
    rows, columns = found.shape
    axes.imshow(_colored(found, _limits(divergence_map)), aspect="auto", interpolation="none")
    ground = Rectangle((-0.5, -0.5), columns, rows, facecolor=GROUND, edgecolor=HATCH, hatch="////", linewidth=0)
    axes.add_patch(ground).set_zorder(-1)
    axes.axhline(len(divergence_map.parameters) - 0.5, color="black", linewidth=0.8)
    axes.tick_params(length=2, labelsize=7.5)
    if divergence_map.first and divergence_map.first[0] == phase:
        _, row, step = divergence_map.first
        axes.plot(step // divergence_map.stride, divergence_map.rows.index(row), **RING, clip_on=False)


def _colored(found: npt.NDArray[np.float64], ends: tuple[float, float]) -> npt.NDArray[np.float64]:
    """Return ``[rows, columns]`` in ULP as colors, ``[rows, columns, 4]``."""
    colors = np.zeros((*found.shape, 4))
    finite = np.isfinite(found) & (found > 0)
    colors[finite] = DISTANCES(LogNorm(*ends)(found[finite]))
    colors[found == IDENTICAL] = _rgba(SAME)
    colors[found == NOT_IN_BITS] = _rgba(OTHERWISE)
    return colors


def _limits(divergence_map: DivergenceMap) -> tuple[float, float]:
    """Return the ends of the color scale, in ULP."""
    largest = max(
        float(np.max(found, initial=1.0, where=np.isfinite(found))) for found in map(divergence_map.map, Phase)
    )
    return 1.0, _SCALE_ENDS[largest < _SCALE_ENDS[True]]


def _ends(divergence_map: DivergenceMap) -> tuple[list[int], list[str]]:
    """Return the first and the last column, and the steps at which they begin."""
    columns = [0, divergence_map.columns - 1]
    return columns, [f"{column * divergence_map.stride:,}" for column in columns]


def _add_legend(figure: Figure, panels: Sequence[Axes], divergence_map: DivergenceMap, side: str, ringed: bool) -> None:
    """Add the meaning of the colors: the scale in ULP, and the colors for values without ULP."""
    scale = ScalarMappable(LogNorm(*_limits(divergence_map)), DISTANCES)
    powers = FuncFormatter(lambda distance, _: power_of_ten(round(math.log10(distance))))
    bar = figure.colorbar(scale, ax=list(panels), location=side, aspect=30, pad=0.02, format=powers)
    bar.set_label("largest distance, ULP", fontsize=8)
    bar.ax.tick_params(labelsize=7.5)
    patches = [
        Patch(facecolor=SAME, edgecolor="black", linewidth=0.5, label="identical"),
        Patch(facecolor=OTHERWISE, label="differs, without ULP"),
        Patch(facecolor=GROUND, edgecolor=HATCH, hatch="////", label="not compared"),
    ]
    first = [Line2D([], [], **RING, linestyle="none", label="first difference")] if ringed else []
    figure.legend(
        handles=[*patches, *first], loc="outside lower center", ncols=4, frameon=False, fontsize=7.5,
        handlelength=1.2, handletextpad=0.4, columnspacing=1.0,
    )  # fmt: skip


def shown(text: str, most: int) -> str:
    r"""Return ``text`` in ASCII, which every font has, and without its middle if it is longer than ``most``.

    >>> shown("größe", 60), shown("blocks.0.layer", 12)
    ('gr\\xf6\\xdfe', 'block...ayer')
    """
    text = text.encode("ascii", "backslashreplace").decode()
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[: most - 3 - half]}...{text[-half:]}"


def _rgba(color: str) -> tuple[float, ...]:
    """Return ``#rrggbb`` as four numbers from 0 to 1."""
    return (*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)
