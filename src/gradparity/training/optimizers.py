"""Optimizers with two parameter groups, and a learning rate that changes every step."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR


def decay_groups(parameters: Iterable[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups: matrices and filters decay; biases and normalization gains (one dimension) do not."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]


def adamw(parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> Optimizer:
    """Return AdamW (https://arxiv.org/abs/1711.05101): the decay acts on the weights, not through the moments."""
    return AdamW(decay_groups(parameters, weight_decay), lr=lr)


def sgd_momentum(parameters: Iterable[nn.Parameter], *, lr: float, weight_decay: float) -> Optimizer:
    """Return SGD with momentum 0.9; its decay is added to the gradient before the momentum sees it."""
    return SGD(decay_groups(parameters, weight_decay), lr=lr, momentum=0.9)


def warmup_cosine(optimizer: Optimizer, *, warmup_steps: int, total_steps: int) -> LambdaLR:
    """Return a schedule that rises linearly, then falls along a cosine to a tenth; it never stays the same.

    Args:
        optimizer: its ``lr`` is the peak.
        warmup_steps: optimizer steps until the peak; 0 starts there.
        total_steps: optimizer steps of the whole training.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)
