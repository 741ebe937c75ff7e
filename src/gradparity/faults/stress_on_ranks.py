"""The stress scenario on several ranks: each has microbatches and masks, and at the beginning weights, of its own.

Every rank has as many microbatches, in windows of as many, since a rank that makes one step fewer leaves the others
waiting. They hold other numbers of tokens on each rank, and where the loss scale has grown, only the gradients of rank
0 overflow. The seldom branch is taken in each of them: what a backward does not reach, plain DDP refuses.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.distributed as dist
from torch import nn

from gradparity.faults.stress import MICROBATCHES, RARE, Cast, build, microbatches, reference
from gradparity.parity.batch import Batch
from gradparity.training.distributed import tensors_of
from gradparity.training.exchange import share


def build_on_ranks(precision: str) -> Cast:
    """Everything as it is at the beginning of this rank."""
    cast = build(precision)
    cast.scaler.set_growth_factor(2.0)
    cast.scaler.set_backoff_factor(0.5)
    return replace(cast, batches=microbatches_of(dist.get_rank()))


def microbatches_of(rank: int) -> Sequence[Batch]:
    """Those of an epoch."""
    rows = slice(None) if rank == 0 else slice(1, 2)
    made = [Batch(inputs[rows], targets[rows]) for inputs, targets in microbatches(MICROBATCHES, seed=2 + rank)]
    for inputs, targets in made:
        inputs[0, 2] = targets[0, 1] = RARE
    return made


def reference_on_ranks(model: nn.Module, **others: Any) -> None:
    """The reference loop, from the weights and buffers that rank 0 has drawn."""
    share(tensors_of(model))
    reference(model, **others)
