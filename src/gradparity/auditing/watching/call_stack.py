"""Questions about the functions that run now, answered from the call stack."""

import sys
from typing import Any

from torch.nn.utils import clip_grad

from gradparity.auditing.watching.later import later


def clipping() -> tuple[str, Any, float] | None:
    """Return the clip function that runs now, its threshold and norm type; ``None`` if only a norm is computed."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_globals is not vars(clip_grad):
        frame = frame.f_back
    if frame is None or "total_norm" in frame.f_code.co_name:
        return None
    name, threshold, norm_type = "", None, 2.0
    while frame is not None:  # the outermost of torch's clip functions is the one that the loop has called
        if frame.f_globals is vars(clip_grad) and "clip_grad" in frame.f_code.co_name:
            name = frame.f_code.co_name
            threshold = frame.f_locals.get("clip_value", frame.f_locals.get("max_norm"))
            norm_type = float(frame.f_locals.get("norm_type", norm_type))
        frame = frame.f_back
    return name, None if threshold is None else later(float, threshold), norm_type


def runs_inside(*names: str) -> bool:
    """Return whether a function of one of these names, of torch or of a scheduler, runs further out on the stack."""
    frame: Any = sys._getframe(2)
    count = 0
    while frame is not None:
        code = frame.f_code
        if code.co_name in names and "/torch/" in code.co_filename:
            count += 1
        frame = frame.f_back
    return count > 0
