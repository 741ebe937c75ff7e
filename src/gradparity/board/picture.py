"""The divergence map as a picture: steps across, parameters down in the order of the network, a panel for each phase.

It brings its own white ground and black letters, so it reads the same on TensorBoard's light and dark pages.
"""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from gradparity.board.spread import IDENTICAL, NOT_IN_BITS, Spread
from gradparity.training import Phase

SAME = "#d7ebe4"
OTHERWISE = "#3aa0ff"
GROUND = "#ffffff"
DISTANCES = ListedColormap(colormaps["inferno_r"](np.linspace(0.12, 0.95, 256)))
"""From yellow for one ULP to black; neither the green of what is identical nor the blue is among them."""
LARGEST = {True: 1e10, False: 1e20}
"""The end of the scale, the same in every picture: above any distance of fp32, or else of fp64."""
MOST_NAMES = 45
"""Of more rows, every second, third, ... is named."""


def glance(spread: Spread, sentence: str) -> Figure:
    """All phases side by side, for a small card: large letters, and no names of parameters."""
    figure = Figure(figsize=(7.2, 4.9), dpi=150, facecolor=GROUND, layout="constrained")
    panels = figure.subplots(1, len(Phase), sharey=True)
    ends = limits(spread)
    for phase, axes in zip(Phase, panels, strict=True):
        draw(axes, spread, phase, ends)
        axes.set_title(phase.name.lower(), fontsize=12)
        axes.set_yticks([])
        steps(axes, spread, most=3)
    panels[0].set_ylabel("parameters, from input to output\n(beneath them all else)", fontsize=11)
    figure.supxlabel("optimizer step", fontsize=11)
    figure.suptitle(wrapped(sentence, 62), fontsize=14, fontweight="bold", x=0.01, ha="left")
    legend(figure, panels, ends)
    return figure


def of_one_phase(spread: Spread, phase: Phase, title: str) -> Figure:
    """One phase, with the name of each row."""
    height = 2.2 + 0.2 * min(len(spread.rows), MOST_NAMES)
    figure = Figure(figsize=(9, height), dpi=110, facecolor=GROUND, layout="constrained")
    axes = figure.subplots()
    ends = limits(spread)
    draw(axes, spread, phase, ends)
    every = math.ceil(len(spread.rows) / MOST_NAMES)
    named = range(0, len(spread.rows), every)
    axes.set_yticks(named, [spread.rows[row] for row in named], fontsize=9)
    axes.set_xlabel("optimizer step")
    steps(axes, spread, most=12)
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    legend(figure, [axes], ends)
    return figure


def draw(axes: Axes, spread: Spread, phase: Phase, ends: tuple[float, float]) -> None:
    """The map of one phase; what was not compared stays hatched."""
    found = spread.map(phase)
    rows, columns = found.shape
    axes.imshow(colored(found, ends), aspect="auto", interpolation="none")
    axes.set_facecolor(GROUND)
    ground = Rectangle((-0.5, -0.5), columns, rows, facecolor=GROUND, edgecolor="#cccccc", hatch="////", linewidth=0)
    axes.add_patch(ground).set_zorder(-1)
    axes.axhline(len(spread.parameters) - 0.5, color="black", linewidth=1)
    axes.tick_params(length=2, labelsize=9)


def colored(found: npt.NDArray[np.float64], ends: tuple[float, float]) -> npt.NDArray[np.float64]:
    """``[rows, columns]`` in ULP as colors, ``[rows, columns, 4]``."""
    colors = np.zeros((*found.shape, 4))
    finite = np.isfinite(found) & (found > 0)
    colors[finite] = DISTANCES(LogNorm(*ends)(found[finite]))
    colors[found == IDENTICAL] = rgba(SAME)
    colors[found == NOT_IN_BITS] = rgba(OTHERWISE)
    return colors


def limits(spread: Spread) -> tuple[float, float]:
    """The ends of the scale."""
    largest = max(float(np.max(found, initial=1.0, where=np.isfinite(found))) for found in map(spread.map, Phase))
    return 1.0, LARGEST[largest < LARGEST[True]]


def steps(axes: Axes, spread: Spread, most: int) -> None:
    """Name some columns by their first step."""
    every = max(1, math.ceil(spread.columns / most))
    shown = range(0, spread.columns, every)
    axes.set_xticks(shown, [f"{column * spread.stride:,}" for column in shown])


def legend(figure: Figure, panels: Sequence[Axes], ends: tuple[float, float]) -> None:
    """What the colors mean: the scale, and what is no number of ULP."""
    scale = ScalarMappable(LogNorm(*ends), DISTANCES)
    bar = figure.colorbar(scale, ax=list(panels), label="largest distance, ULP", fraction=0.05, pad=0.02)
    bar.ax.tick_params(labelsize=9)
    patches = [
        Patch(facecolor=SAME, edgecolor="black", linewidth=0.5, label="identical, 0 ULP"),
        Patch(facecolor=OTHERWISE, label="differs, but not in bits"),
        Patch(facecolor=GROUND, edgecolor="#bbbbbb", hatch="////", label="not compared here"),
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, frameon=False, fontsize=10)


def rgba(color: str) -> tuple[float, ...]:
    """``#rrggbb`` as four numbers from 0 to 1."""
    return (*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0)


def wrapped(sentence: str, width: int) -> str:
    """On as many lines as it takes."""
    return "\n".join(textwrap.wrap(sentence, width))
