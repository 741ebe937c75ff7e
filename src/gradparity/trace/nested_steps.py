"""Optimizers that are in the middle of a step, read from the call stack.

A step may make further steps, of the same optimizer or of a different one.
"""

import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as torchs


def stepping() -> list[Optimizer]:
    """Return the optimizers whose hooked ``step`` is on this thread's stack, the innermost first.

    A class whose ``step`` calls ``super().step()`` appears twice, because PyTorch puts its hooks around both. An
    optimizer may be missing if torch.compile has replaced the frames of its step.
    """
    found: list[Optimizer] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == torchs.__file__ and frame.f_code.co_name == "wrapper":
            found.append(frame.f_locals["self"])
        frame = frame.f_back
    return found


def is_nested(optimizer: Optimizer, around: Sequence[Optimizer]) -> bool:
    """Return whether a step of ``optimizer`` runs inside another step of its own.

    Args:
        optimizer: the optimizer whose step runs.
        around: the optimizers on the stack, from :func:`stepping`.
    """
    return sum(other is optimizer for other in around) > 1


def takes_closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a step was given a callable, which may compute the gradients that the step will read.

    Args:
        args: positional arguments of the step, the optimizer first.
        kwargs: keyword arguments of the step.
    """
    return any(callable(given) and not isinstance(given, Tensor) for given in (*args[1:], *kwargs.values()))
