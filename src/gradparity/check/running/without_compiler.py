"""``torch.compile`` without its compiler: the loop is judged, and its compiled functions run as they are written.

Compiling takes minutes, rounds differently and draws different dropout masks. All of that is the compiler's doing, not
the loop's.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_VARIABLE = "TORCH_COMPILE_DISABLE"


@contextmanager
def without_compiler() -> Iterator[list[object]]:
    """Run compiled functions uncompiled in the block; yield a list that stays empty if nothing is to be compiled."""
    asked: list[object] = []
    original, variable = torch.compile, os.environ.get(_VARIABLE)

    def noting(*given: Any, **named: Any) -> Any:
        asked.append(given[:1])
        return original(*given, **named)

    os.environ[_VARIABLE] = "1"  # read when torch._dynamo is imported, which takes seconds
    disabled = _disable(True)
    torch.compile = noting
    try:
        yield asked
    finally:
        torch.compile = original
        _disable(disabled)
        os.environ.pop(_VARIABLE) if variable is None else os.environ.update({_VARIABLE: variable})


def _disable(disabled: bool) -> bool:
    """Set whether a compiler that is imported is disabled, and return whether it was."""
    config: Any = sys.modules.get("torch._dynamo.config")
    if config is None:
        return False
    before: bool = config.disable
    config.disable = disabled
    return before
