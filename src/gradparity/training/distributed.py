"""One optimizer step of each rank of several: DDP exchanges the gradients, or we do. Read the two side by side.

What DistributedDataParallel (DDP) does for you, and what is done by hand without it:

* all ranks start from the weights and buffers of rank 0 (``share(tensors_of(model))``, once);
* before the first forward of a window, rank 0's buffers go to all (BatchNorm's running statistics);
* the gradients are averaged over ranks, once a window, after its last backward;
* a parameter that no rank has reached keeps ``None``, as on one rank.

DDP does this in hooks of the ``.grad`` accumulation. ``torch.autograd.grad`` accumulates nothing: through a DDP module
it silently returns the rank's own gradients. By hand is then the only way, and it gives the same bits.

What neither does: DDP *averages* gradients, which is right for the mean of a loss only if every rank counts as much.
So the loss is divided by the count of all ranks' windows, over the number of ranks.

By hand, it is :func:`gradparity.training.train_step` line for line, and four lines more. So the faults of that step
are faults of this one, and are looked for on several ranks too (:mod:`gradparity.faults.patching_on_ranks`).
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gradparity.training import Moment, Phase, Run, Window
from gradparity.training.collectives import Averaging, all_reduced, average, share, total


@dataclass(frozen=True)
class RankRun(Run):
    """A rank's part in training one model."""

    wrapped: DistributedDataParallel | None = None
    """The model in DDP, for :func:`ddp_step`."""


def ddp_step(run: RankRun, window: Window[Any]) -> Iterator[Moment]:
    """Make one optimizer step with DDP, stopping at every phase.

    Source: PyTorch's notes "Automatic Mixed Precision examples" and ``DistributedDataParallel.no_sync``.
    """
    assert run.wrapped is not None
    run.optimizer.zero_grad(set_to_none=True)

    # All ranks' count, over the number of ranks: DDP will divide by that number too.
    window = replace(window, normalizer=total(window.normalizer) / dist.get_world_size())
    for index, microbatch in enumerate(window.microbatches):
        last = index + 1 == len(window.microbatches)
        # Around the forward too: there DDP decides whether the backward after it will exchange.
        with nullcontext() if last else run.wrapped.no_sync():
            with run.autocast():
                loss = run.loss(run.wrapped, microbatch) / window.normalizer
            yield Moment(Phase.FORWARD, index, loss.detach())
            run.route(run.scaler.scale(loss), run.parameters)
        yield Moment(Phase.ACCUMULATED, index)

    # An inf on one rank is an inf in the average, which is everyone's: all will skip the step, or none.
    run.scaler.unscale_(run.optimizer)
    yield Moment(Phase.UNSCALED)
    # The norm of the averaged gradients is the global norm.
    run.clip(run.parameters)
    yield Moment(Phase.CLIPPED)

    # With the same gradients, all ranks come to the same decisions.
    scale = run.scaler.get_scale()
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.scaler.get_scale() >= scale > 1e-38:
        run.scheduler.step()
    yield Moment(Phase.STEPPED)


def manual_step(run: Run, window: Window[Any], averaging: Averaging = all_reduced) -> Iterator[Moment]:
    """Make one optimizer step without DDP, in the same bits."""
    run.optimizer.zero_grad(set_to_none=True)

    window = replace(window, normalizer=total(window.normalizer) / dist.get_world_size())
    share(run.model.buffers())
    for index, microbatch in enumerate(window.microbatches):
        with run.autocast():
            loss = run.loss(run.model, microbatch) / window.normalizer
        yield Moment(Phase.FORWARD, index, loss.detach())
        run.route(run.scaler.scale(loss), run.parameters)
        # Before anything looks at the gradients: the scaler for infs, the clip for their norm.
        if index + 1 == len(window.microbatches):
            average(run.parameters, averaging)
        yield Moment(Phase.ACCUMULATED, index)

    run.scaler.unscale_(run.optimizer)
    yield Moment(Phase.UNSCALED)
    run.clip(run.parameters)
    yield Moment(Phase.CLIPPED)

    scale = run.scaler.get_scale()
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.scaler.get_scale() >= scale > 1e-38:
        run.scheduler.step()
    yield Moment(Phase.STEPPED)


def tensors_of(model: nn.Module) -> Iterator[Tensor]:
    """Return the tensors that must be the same on all ranks before the first step."""
    return chain(model.parameters(), model.buffers())
