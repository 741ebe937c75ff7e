"""A microbatch of a task: inputs, targets, the loss summed over them, and the number of samples or tokens in it."""

from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PADDING = -100
"""The target that is left out of the loss, the count and the metric."""


class Examples(NamedTuple):
    """Inputs and targets of equal length; a microbatch is some of them."""

    inputs: Tensor
    targets: Tensor


Batch: TypeAlias = Examples


def summed_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return the cross-entropy summed over the samples or tokens of ``batch`` that are not padding, a scalar.

    Computed in fp32 at least: a sum of thousands of fp16 terms overflows.
    """
    logits = model(batch.inputs)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = batch.targets.flatten()
    return F.cross_entropy(logits.flatten(0, -2), targets, ignore_index=PADDING, reduction="sum")


def count(batch: Batch) -> int:
    """Return the number of samples or tokens in :func:`summed_loss`."""
    return int((batch.targets != PADDING).sum())
