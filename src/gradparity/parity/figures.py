"""The size of a difference between two tensors, in figures; ``metrics`` computes them."""

import math
from typing import NamedTuple


class Figures(NamedTuple):
    """The size of a difference. Fields from ``max_absolute`` to ``cosine`` leave out elements that are not finite."""

    elements: int
    differing: int
    """Number of elements whose bits differ."""
    max_ulp: int
    median_ulp: int
    """Median over the differing elements, rounded down to a power of two."""
    max_absolute: float
    max_relative: float
    """Largest ``|candidate - reference| / |reference|`` where the reference is not 0."""
    relative_norm: float
    """L2 norm of the difference over the L2 norm of the reference."""
    norm_ratio: float
    """L2 norm of the candidate over the L2 norm of the reference."""
    cosine: float
    """Cosine of the angle between reference and candidate."""
    histogram: tuple[int, ...] = ()
    """Number of elements that differ by 1, then 2 or 3, then 4 to 7, ... ULP, up to the largest distance."""


def finite(figures: Figures) -> dict[str, float | tuple[int, ...] | None]:
    """Return ``figures`` for JSON, with ``None`` for infinity and NaN, which JSON does not have."""
    values = figures._asdict().items()
    return {name: value if isinstance(value, tuple) or math.isfinite(value) else None for name, value in values}
