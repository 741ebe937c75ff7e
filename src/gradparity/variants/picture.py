"""How far the parameters of each variant drift from the reference's, as a picture."""

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from gradparity.variants.measure import Outcome

SAME_BITS = 0.0
COLORS = ("#4477aa", "#ee6677", "#228833", "#aa7700", "#aa3377", "#0099aa", "#555555")
"""Told apart by colour-blind eyes too (https://sronpersonalpages.nl/~pault), its light colours darkened."""
DASHED = (0, (4, 3))
"""The second seven lines."""
WIDEST = 4.0
"""Lines get thinner from the first to the last: where two are equal, both are seen."""


def picture(outcomes: Sequence[Outcome]) -> Figure:
    """Relative norm and ULP of the parameters' difference after each step, zero on a line of its own."""
    figure = Figure(figsize=(13, 6.5), dpi=110, facecolor="white", layout="constrained")
    norms, ulps = figure.subplots(1, 2, sharex=True)
    for index, outcome in enumerate(outcomes):
        steps = range(1, len(outcome.growth) + 1)
        style: dict[str, Any] = {
            "color": COLORS[index % len(COLORS)],
            "linestyle": DASHED if index >= len(COLORS) else "solid",
            "linewidth": WIDEST - 2.6 * index / len(outcomes),
        }
        norms.plot(steps, [f.relative_norm for f in outcome.growth], label=outcome.variant.name, **style)
        ulps.plot(steps, [f.median_ulp for f in outcome.growth], **style)
        ulps.plot(steps, [f.max_ulp for f in outcome.growth], **{**style, "linewidth": 0.7, "alpha": 0.4})
    norms.set_ylabel("L2 norm of the difference over that of the reference")
    ulps.set_ylabel("ULP: median of the elements that differ (faint: the largest)")
    for axes in (norms, ulps):
        logarithmic_above_zero(axes)
    figure.suptitle("The parameters of each variant against the reference's")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return figure


def logarithmic_above_zero(axes: Axes) -> None:
    """Decades from below the smallest value that is drawn, and under them, on a line of its own, zero."""
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines])
    exponent = math.floor(math.log10(min(values[values > 0], default=1.0)))
    smallest = 10.0**exponent
    axes.set_yscale("symlog", linthresh=smallest, linscale=0.5)
    axes.axhspan(-smallest / 2, smallest / 2, color="#e8e8e8", zorder=0)
    top = max(math.ceil(math.log10(max(values[values > 0], default=1.0))), exponent + 1)
    axes.set_ylim(-smallest / 2, 10.0**top)
    exponents = range(exponent, top + 1)
    labels = ["same bits", *(f"$10^{{{e}}}$" for e in exponents)]
    axes.set_yticks([SAME_BITS, *(10.0**e for e in exponents)], labels)
    axes.set_xlabel("optimizer step")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """``figure`` drawn: ``[height, width, 3]``. No window system and no global state of matplotlib is asked."""
    png = BytesIO()
    figure.savefig(png, format="png")
    png.seek(0)
    return np.asarray(Image.open(png).convert("RGB"))
