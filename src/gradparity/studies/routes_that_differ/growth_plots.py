"""Plots of the drift of each variant's parameters from the reference's."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradparity.studies.routes_that_differ.measure import VariantOutcome
from gradparity.tensorboard.mpl_style import CARD_SIZE, DPI, bold, power_of_ten

SAME_BITS = 0.0
_COLORS = ("#4477aa", "#ee6677", "#228833", "#aa7700", "#aa3377", "#0099aa", "#555555")
"""A colour-blind-safe palette (https://sronpersonalpages.nl/~pault), its light colours darkened."""
DASHED = (0, (4, 3))
"""The style of the second seven lines."""
MOST_TICKS = 9
WIDEST = 4.0
"""Width of the first line. Later lines are thinner, so that of two equal lines both can be seen."""


def pictures(outcomes: Sequence[VariantOutcome]) -> dict[str, Figure]:
    """Return two plots by title: relative norm and median ULP of the parameters' difference after each step.

    Zero is drawn on a separate line below the logarithmic axis.
    """
    norms, ulps = (Figure(figsize=CARD_SIZE, dpi=DPI, facecolor="white", layout="constrained") for _ in range(2))
    of_norms, of_ulps = norms.subplots(), ulps.subplots()
    for index, outcome in enumerate(outcomes):
        steps = range(1, len(outcome.growth) + 1)
        style: dict[str, Any] = {
            "color": _COLORS[index % len(_COLORS)],
            "linestyle": DASHED if index >= len(_COLORS) else "solid",
            "linewidth": WIDEST - 2.6 * index / len(outcomes),
            "label": outcome.variant.name,
        }
        of_norms.plot(steps, [f.relative_norm for f in outcome.growth], **style)
        of_ulps.plot(steps, [f.median_ulp for f in outcome.growth], **style)
    drawn = {
        "1 norm of the distance": (norms, of_norms, "How far parameters are apart, over their norm"),
        "2 ULP, the median": (ulps, of_ulps, "How far they are apart: median ULP of those that differ"),
    }
    for figure, axes, head in drawn.values():
        logarithmic_above_zero(axes)
        figure.suptitle(head, fontsize=10, x=0.01, ha="left")
        figure.legend(loc="outside right center", frameon=False, fontsize=7, handlelength=1.6, labelspacing=0.35)
        bold(figure)
    return {title: figure for title, (figure, _, _) in drawn.items()}


def logarithmic_above_zero(axes: Axes) -> None:
    """Scale the y axis in decades, from just below the smallest positive value, with zero on a separate line below."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    exponent = math.floor(math.log10(min(values[values > 0], default=1.0)))
    smallest = 10.0**exponent
    axes.set_yscale("symlog", linthresh=smallest, linscale=0.5)
    axes.axhspan(-smallest / 2, smallest / 2, color="#e8e8e8", zorder=0)
    top = max(math.ceil(math.log10(max(values[values > 0], default=1.0))), exponent + 1)
    axes.set_ylim(-smallest / 2, 10.0**top)
    exponents = range(exponent, top + 1)
    shown = exponents[:: math.ceil(len(exponents) / MOST_TICKS)]
    axes.set_yticks([SAME_BITS, *(10.0**e for e in shown)], ["same bits", *map(power_of_ten, shown)], fontsize=7.5)
    axes.set_yticks([], minor=True)
    axes.tick_params(labelsize=7.5, length=2)
    axes.set_xlabel("optimizer step", fontsize=8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
