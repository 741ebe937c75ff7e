"""A wrong loop in pieces, for libraries that drive the training themselves.

Both libraries compare a loop with itself: its microbatches with a full batch, or a resumed run with an uninterrupted
one. Parts that rightly differ on a full batch are switched off: dropout, BatchNorm's statistics, half precision, and
the branch.
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
"""Microbatches of the stress scenario that make a full batch: of uneven sizes, and none of them takes the branch."""

SEED = seed_of(0, "stress")
"""The seed of the stress scenario; different weights and masks would overflow and clip at different steps."""

OUTSIDE = frozenset({"reference"})
"""The functions that neither library takes from its user: they decide when the loop stops and resumes."""


def pieces(fault: Fault | None) -> Namespace:
    """Return the functions of the reference by name, with ``fault`` in them."""
    return reference_with([fault] if fault else [])


def changed(fault: Fault) -> set[str]:
    """Return the names of the reference's functions that ``fault`` changes."""
    return {thing.__name__ for thing in fault.changes}


def cast_of(names: Namespace) -> stress.Cast:
    """Build model, optimizer, scaler, scheduler and data of the stress scenario, in fp16."""
    cast: stress.Cast = names["build"]("fp16")
    return cast


def steady_cast_of(names: Namespace) -> stress.Cast:
    """Build the same, but computing in fp32, without dropout, and with BatchNorm's statistics fixed.

    The loss is still scaled.
    """
    cast = cast_of(names)
    for module in (cast.model.norm, cast.model.dropout):
        assert isinstance(module, nn.Module)
        module.register_forward_pre_hook(_switch_off)
    return replace(cast, plan=replace(cast.plan, autocast=partial(PRECISIONS["fp32"].autocast, "cpu")))


def _switch_off(module: nn.Module, _: Any) -> None:
    module.training = False


def run_of(names: Namespace, cast: stress.Cast) -> Run:
    """Return ``cast`` as the run that a step takes."""
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
    """Join the ``chosen`` microbatches into one batch."""
    batches = [cast.batches[index] for index in chosen]
    return Batch(torch.cat([b.inputs for b in batches]), torch.cat([b.targets for b in batches]))
