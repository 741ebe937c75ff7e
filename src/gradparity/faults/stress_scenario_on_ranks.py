"""The stress scenario on several ranks: each has its own microbatches, dropout masks and initial weights.

Every rank has the same number of microbatches, in windows of the same sizes, since a rank that makes one step fewer
leaves the others waiting. The numbers of tokens differ between ranks. When the loss scale has grown, only the gradients
of rank 0 overflow. Every microbatch takes the rare branch, since plain DDP refuses parameters that a backward does not
reach.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.distributed as dist
from torch import nn

from gradparity.faults.stress_scenario import MICROBATCHES, RARE, Cast, build, microbatches, reference
from gradparity.parity.batch import Batch
from gradparity.training.collectives import share
from gradparity.training.distributed import tensors_of


def build_on_ranks(precision: str) -> Cast:
    """Build everything in its initial state on this rank."""
    cast = build(precision)
    cast.scaler.set_growth_factor(2.0)
    cast.scaler.set_backoff_factor(0.5)
    return replace(cast, batches=microbatches_of(dist.get_rank()))


def microbatches_of(rank: int) -> Sequence[Batch]:
    """Return the microbatches of an epoch on ``rank``."""
    rows = slice(None) if rank == 0 else slice(1, 2)
    made = [Batch(inputs[rows], targets[rows]) for inputs, targets in microbatches(MICROBATCHES, seed=2 + rank)]
    for inputs, targets in made:
        inputs[0, 2] = targets[0, 1] = RARE
    return made


def reference_on_ranks(model: nn.Module, **others: Any) -> None:
    """Run the reference loop, from the weights and buffers that rank 0 has drawn."""
    share(tensors_of(model))
    reference(model, **others)
