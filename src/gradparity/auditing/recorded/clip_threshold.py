"""The threshold of a clip, read off its effect: a trace holds no arguments of calls."""

import math
from collections.abc import Sequence

from gradparity.auditing.events import GradientLook
from gradparity.auditing.step_windows import StepWindow, size

ALIKE = 1e-3
"""Relative difference that counts as rounding."""


def clip_threshold(windows: Sequence[StepWindow]) -> float | None:
    """Return the norm to which the gradients were clipped; ``None`` if no clip had an effect, or each another one."""
    norms = [norm for window in windows if (norm := _norm_after(window)) is not None]
    if not norms or max(norms) - min(norms) > 10 * ALIKE * max(norms):
        return None
    return float(f"{max(norms):.3g}")


def _norm_after(window: StepWindow) -> float | None:
    if len(window.clips) != 1 or window.end is None:
        return None
    clip = window.clips[0][0]
    before, after = clip.before, window.end.before
    scale = window.made.scale if window.made is not None and window.made.scale else 1.0
    late = window.unscaled is not None and window.unscaled.number > clip.number
    if late:  # what came out was divided by the loss scale since
        after = tuple(None if g is None else g._replace(norm=g.norm * scale) for g in after)
    factors = _factors(before, after)
    alike = bool(factors) and max(factors) - min(factors) <= ALIKE * max(factors)
    return size(after) if alike and max(factors) < 1 - ALIKE and math.isfinite(size(after)) else None


def _factors(before: GradientLook, after: GradientLook) -> list[float]:
    pairs = [(abs(a.norm), abs(b.norm)) for a, b in zip(before, after, strict=False) if a is not None and b is not None]
    return [b / a for a, b in pairs if a and math.isfinite(a + b)]
