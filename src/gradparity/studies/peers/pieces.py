"""A wrong loop in pieces, as libraries ask for them that drive the training themselves.

Both compare a loop with itself: its microbatches with a full batch, or going on with never having stopped. What rightly
differs on a full batch is taken out of the way: dropout, BatchNorm's statistics, half precision, and the branch.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from gradparity.faults import Fault, stress
from gradparity.faults.patching import Namespace, reference_with
from gradparity.parity.random_stream import seed_of
from gradparity.studies.tasks import Batch
from gradparity.training import PRECISIONS, Run

FULL_BATCHES = ((3, 4, 5), (8, 9, 10))
"""Microbatches of the stress scenario that make a full batch: uneven, and none that leads into the branch."""

SEED = seed_of(0, "stress")
"""What the stress scenario is seen with; other weights and masks overflow and clip at other steps."""

OUTSIDE = frozenset({"reference"})
"""What neither library takes from its user: when the loop stops, and goes on."""


def pieces(fault: Fault | None) -> Namespace:
    """The functions of the reference by name, with ``fault`` in them."""
    return reference_with([fault] if fault else [])


def changed(fault: Fault) -> set[str]:
    """The functions of the reference that a fault changes, by name."""
    return {thing.__name__ for thing in fault.changes}


def cast_of(names: Namespace) -> stress.Cast:
    """Everything that takes part, in fp16."""
    cast: stress.Cast = names["build"]("fp16")
    return cast


def steady_cast_of(names: Namespace) -> stress.Cast:
    """The same, still scaled, but computing in fp32, without dropout and with the statistics of BatchNorm kept."""
    cast = cast_of(names)
    for module in (cast.model.norm, cast.model.dropout):
        assert isinstance(module, nn.Module)
        module.register_forward_pre_hook(_switch_off)
    return replace(cast, plan=replace(cast.plan, autocast=partial(PRECISIONS["fp32"].autocast, "cpu")))


def _switch_off(module: nn.Module, _: Any) -> None:
    module.training = False


def run_of(names: Namespace, cast: stress.Cast) -> Run:
    """Everything that takes part, as a step wants it."""
    run: Run = names["run_of"](
        cast.model,
        cast.optimizer,
        cast.loss,
        cast.scaler,
        cast.scheduler,
        cast.plan.autocast,
        cast.plan.max_norm,
    )
    return run


def full_batch(cast: stress.Cast, chosen: Sequence[int]) -> Batch:
    """Some microbatches as one batch."""
    batches = [cast.batches[index] for index in chosen]
    return Batch(torch.cat([b.inputs for b in batches]), torch.cat([b.targets for b in batches]))
