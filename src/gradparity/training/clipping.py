"""Clipping: what is done to the gradients between ``unscale_`` and ``step``.

Once a step, on all parameters together, on gradients that no longer carry the loss scale. Each function here
takes the threshold and returns what the training step calls.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import nn
from torch.optim import Optimizer

Clip: TypeAlias = Callable[[Sequence[nn.Parameter]], None]


def no_clip(parameters: Sequence[nn.Parameter]) -> None:
    """Leave the gradients as they are."""


def clip_by_norm(max_norm: float) -> Clip:
    """Scale all gradients by one factor so that their common L2 norm is at most ``max_norm``.

    Keeps the direction of the update. See ``torch.nn.utils.clip_grad_norm_``.
    """

    def clip(parameters: Sequence[nn.Parameter]) -> None:
        nn.utils.clip_grad_norm_(parameters, max_norm)

    return clip


def clip_by_value(max_value: float) -> Clip:
    """Move every gradient element into ``[-max_value, max_value]``.

    Changes the direction of the update. See ``torch.nn.utils.clip_grad_value_``.
    """

    def clip(parameters: Sequence[nn.Parameter]) -> None:
        nn.utils.clip_grad_value_(parameters, max_value)

    return clip


def in_order_of(optimizer: Optimizer, clip: Clip) -> Clip:
    """Return ``clip`` on the optimizer's parameters in its order, as frameworks have it: the order rounds the norm."""
    return lambda _: clip([p for group in optimizer.param_groups for p in group["params"]])
