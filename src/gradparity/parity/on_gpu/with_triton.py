"""The choice between Triton's kernels and PyTorch's operations."""

import os
import warnings
from functools import cache
from importlib import import_module
from typing import Any

import torch


def launcher(device: torch.device) -> Any:
    """Return :mod:`gradparity.parity.on_gpu.launch` if its kernels run on ``device``; ``None`` if they do not.

    They run on GPUs for which Triton and its compiler are installed, and on the CPU in Triton's interpreter, for tests.
    """
    return _launcher(device) if device.type == "cuda" or _interpreted(device) else None


def _interpreted(device: torch.device) -> bool:
    return device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _launcher(device: torch.device) -> Any:
    """Return the module if a small launch works, which takes a compiler for C too."""
    try:
        with warnings.catch_warnings(), torch.cuda.device(device if device.type == "cuda" else -1):
            warnings.simplefilter("ignore")  # of Triton's compiler; where warnings are errors, it would not run
            launch: Any = import_module("gradparity.parity.on_gpu.launch")
            launch.launched_rows([torch.zeros(1, device=device)])
    except Exception:  # Triton is missing, or old, or finds no compiler: each of its versions raises something else
        return None
    return launch
