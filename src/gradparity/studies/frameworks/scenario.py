"""The training that every framework runs: one task, one order of data, one set of initial weights, many scenarios."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

from gradparity import training
from gradparity.parity.batch import PADDING, Examples
from gradparity.parity.random_stream import RandomStream
from gradparity.studies.tasks.text import CharTransformer, text_transformer
from gradparity.trace.process_rank import this_rank, world_size

SEED = 20
MICROBATCH = 4
"""Pieces of text in a microbatch. Without padding they have 4 · 64 tokens: division by a power of two is exact."""

TITLE = 4
"""Pieces of text that are left out of uneven data. After them, each window of one rank or of two has a token count n
for which K / n * (1 / K) and 1 / n differ in fp32, so no processor can round them to the same bits."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One epoch, with at most one thing that could make a framework differ from the reference."""

    k: int = 3
    """Microbatches in a window. Three, as powers of two hide a division in the wrong place."""
    microbatches: int = 12
    """Microbatches of each rank."""
    uneven: bool = False
    """True if microbatches have padding, each with a different number of tokens."""
    max_norm: float | None = None
    """The norm that the gradients are clipped to."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    overflow: bool = False
    """True if the loss scale is made to overflow, in the fourth step only."""
    schedule: bool = False
    """True if the learning rate changes with every step."""
    save_after: int | None = None
    """Steps after which a checkpoint is saved, and loaded into new objects, which continue from it."""
    dropout: float = 0.1


SCENARIOS = {
    "K = 1": Scenario(k=1, microbatches=4),
    "K = 3": Scenario(),
    "uneven token counts": Scenario(uneven=True),
    "partial last window": Scenario(microbatches=11),
    "clipping": Scenario(max_norm=0.05),
    "bf16": Scenario(precision="bf16"),
    "fp16 and clipping": Scenario(precision="fp16", max_norm=0.05),
    "fp16 and an overflow": Scenario(precision="fp16", overflow=True, schedule=True, microbatches=21),
    "schedule per step": Scenario(schedule=True),
    "resume mid-epoch": Scenario(save_after=2),
    "resume with dropout off": Scenario(save_after=2, dropout=0.0),
}

TWO_RANKS = "2 ranks: "
UNSHUFFLED = f"{TWO_RANKS}data in order"
RANK_SCENARIOS = {
    UNSHUFFLED: Scenario(k=1, microbatches=2),
    f"{TWO_RANKS}K = 1": Scenario(k=1, microbatches=2),
    f"{TWO_RANKS}K = 3": Scenario(microbatches=6),
    f"{TWO_RANKS}uneven token counts": Scenario(microbatches=6, uneven=True),
    f"{TWO_RANKS}partial last window": Scenario(microbatches=5),
    f"{TWO_RANKS}clipping": Scenario(microbatches=6, max_norm=0.05),
    f"{TWO_RANKS}bf16": Scenario(microbatches=6, precision="bf16"),
    f"{TWO_RANKS}fp16 and clipping": Scenario(microbatches=6, precision="fp16", max_norm=0.05),
}
"""For loops that train on several ranks; scenarios that do not depend on the number of ranks are left out."""


@dataclass(frozen=True)
class Job:
    """The input of a loop: fresh objects, and whether this is the first or the second half of a resumed training."""

    scenario: Scenario
    model: nn.Module
    optimizer: Optimizer
    scheduler: LambdaLR
    scaler: GradScaler
    """For fp16; disabled in any other precision."""
    examples: Examples
    """Of all ranks together; the loop decides which rank trains on which."""
    checkpoint: Path
    """An empty folder, or with ``resume`` the one that the first half saved to."""
    stop_after: int | None = None
    """Steps after which to save and stop."""
    resume: bool = False
    seed: int = SEED

    def loader(self) -> DataLoader[Any]:
        """Return the microbatches as ``[inputs, targets]``, in order."""
        # A separate generator: a DataLoader, even one without workers, draws a seed for workers from the global one.
        return DataLoader(TensorDataset(*self.examples), batch_size=MICROBATCH, generator=torch.Generator())


def new_job(scenario: Scenario, checkpoint: Path, *, stop_after: int | None = None, resume: bool = False) -> Job:
    """Return a job made from its seeds: always the same weights and data.

    On several ranks there is that many times as much data. Each rank starts with different weights, which those of
    rank 0 have to replace.
    """
    with RandomStream(SEED + this_rank()).active():
        model = CharTransformer(width=16, heads=2, layers=1, dropout=scenario.dropout)
    # One group: the order of the terms rounds a norm, and must not depend on which code lists the parameters.
    optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    steps = -(-scenario.microbatches // scenario.k)
    scheduler = training.warmup_cosine(optimizer, warmup_steps=2, total_steps=steps)
    if not scenario.schedule:
        scheduler = LambdaLR(optimizer, lambda _: 1.0)
    examples = _examples(scenario.uneven, MICROBATCH * scenario.microbatches * world_size())
    return Job(scenario, model, optimizer, scheduler, _scaler(scenario), examples, checkpoint, stop_after, resume)


def mean_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over the tokens of a microbatch, as the documentation of frameworks does."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=PADDING)


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the sum over the tokens of a microbatch, for loops that know the token count of the whole window."""
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=PADDING, reduction="sum")


def _scaler(scenario: Scenario) -> GradScaler:
    """Return the loss scaler of a scenario.

    For ``overflow`` it starts at 16. Its extreme factors make it overflow in the fourth step and return to 16 in the
    fifth.
    """
    if not scenario.overflow:
        return GradScaler("cpu", init_scale=2.0**10, enabled=scenario.precision == "fp16")
    return GradScaler("cpu", init_scale=16.0, growth_factor=2.0**30, backoff_factor=2.0**-30, growth_interval=3)


@cache
def _examples(uneven: bool, count: int) -> Examples:
    """Return pieces of prose that fill the context; for ``uneven`` all pieces after the title, some of them shorter."""
    inputs, targets = text_transformer().train
    full = (targets != PADDING).all(dim=1)
    chosen = torch.arange(TITLE, len(inputs)) if uneven else full.nonzero().flatten()
    return Examples(inputs[chosen[:count]], targets[chosen[:count]])
