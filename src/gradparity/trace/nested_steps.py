"""Which optimizers are in the middle of a step, read off the stack: a step may make others, of itself or of another."""

import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim import optimizer as torchs


def stepping() -> list[Optimizer]:
    """Return the optimizers whose hooked ``step`` is on this thread's stack, the innermost first.

    A class whose ``step`` calls ``super().step()`` is there twice: PyTorch puts its hooks around both. One may be
    missing where torch.compile has made other frames of the step.
    """
    found: list[Optimizer] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == torchs.__file__ and frame.f_code.co_name == "wrapper":
            found.append(frame.f_locals["self"])
        frame = frame.f_back
    return found


def is_nested(optimizer: Optimizer, around: Sequence[Optimizer]) -> bool:
    """Return whether a step of ``optimizer`` is made within another of its own, given those on the stack."""
    return sum(other is optimizer for other in around) > 1


def takes_closure(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return whether a step was given something to call, which may make the gradients that it will read.

    Args:
        args: of the step, the optimizer first.
        kwargs: of the step.
    """
    return any(callable(given) and not isinstance(given, Tensor) for given in (*args[1:], *kwargs.values()))
