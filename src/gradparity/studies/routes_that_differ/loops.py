"""The loops, each a small change to the reference step or to the manual route.

All are correct: they compute the same update in a different way. A loop that sums a whole window yields no phases for
the earlier microbatches. It yields once, at the last one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradparity.faults import FAULTS, loop_with
from gradparity.faults.custom_fault import rewritten
from gradparity.parity.lockstep import Step
from gradparity.training import Moment, Phase, Route, Run, Window, backward, manual, train_step
from gradparity.training.routes import copy_for


@dataclass(frozen=True)
class VariantLoop:
    """A step, the route it takes, and its name in tables."""

    name: str
    step: Step = train_step
    route: Route = manual


def full_batch(run: Run, window: Window[Any]) -> Iterator[Moment]:
    """Run one forward over all samples of the window at once, and report it as the window's last microbatch."""
    last = len(window.microbatches) - 1
    fields = zip(*window.microbatches, strict=True)
    whole = type(window.microbatches[0])(*map(torch.cat, fields))
    for moment in train_step(run, Window((whole,), window.normalizer)):
        if moment.phase != Phase.FORWARD:  # its loss, of the whole window, has no counterpart in other loops
            yield moment if moment.microbatch is None else replace(moment, microbatch=last)


def fused(run: Run, window: Window[Any]) -> Iterator[Moment]:
    """Update by the optimizer's fused implementation: one kernel for the whole update instead of one per operation."""
    for moment in train_step(run, window):
        # Set for the update only, so that the optimizer's settings are equal at every comparison.
        for group in run.optimizer.param_groups:
            group["fused"] = True if moment.phase == Phase.CLIPPED else None
        yield moment


def add_func_grad(run: Run, microbatch: Any, normalizer: float) -> Tensor:
    """Add the gradients from ``torch.func.grad`` to every ``.grad``, and return the loss.

    ``torch.func.grad`` takes the loss as a function of the parameters. For a parameter that the loss does not depend
    on, it returns zeros.
    """

    def loss_of(parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        def model(*inputs: Tensor) -> Tensor:
            return cast("Tensor", functional_call(run.model, parameters, inputs))

        loss = run.loss(cast("nn.Module", model), microbatch) / normalizer
        return run.scaler.scale(loss), loss

    # Detached: otherwise the returned gradients, and so p.grad, would be part of a graph.
    parameters = {name: p.detach() for name, p in run.model.named_parameters()}
    gradients, loss = torch.func.grad(loss_of, has_aux=True)(parameters)
    for name, p in run.model.named_parameters():
        if p.grad is None:
            p.grad = copy_for(gradients[name], p)
        else:
            p.grad.add_(gradients[name])
    return cast("Tensor", loss)


REFERENCE_LOOP = VariantLoop("the reference", route=backward)

SUMMED = VariantLoop("summed loss", *loop_with(FAULTS["summed-loss"]))

REVERSED = VariantLoop(
    "reversed order",
    rewritten(
        train_step,
        """
        run.route(run.scaler.scale(loss), run.parameters)
        yield Moment(Phase.ACCUMULATED, index)
""",
        """
        losses = [loss] if index == 0 else [loss, *losses]
    for loss in losses:
        run.route(run.scaler.scale(loss), run.parameters)
    yield Moment(Phase.ACCUMULATED, index)
""",
    ),
)

DIVIDED_AFTER = VariantLoop(
    "divided after",
    rewritten(
        train_step,
        """
            loss = run.loss(run.model, microbatch) / window.normalizer
        yield Moment(Phase.FORWARD, index, loss.detach())
        run.route(run.scaler.scale(loss), run.parameters)
        yield Moment(Phase.ACCUMULATED, index)
""",
        """
            loss = run.loss(run.model, microbatch)
        yield Moment(Phase.FORWARD, index, loss.detach() / window.normalizer)
        run.route(run.scaler.scale(loss), run.parameters)
    for p in run.parameters:
        if p.grad is not None:
            p.grad /= window.normalizer
    yield Moment(Phase.ACCUMULATED, index)
""",
    ),
)

ZEROS_FOR_NONE = VariantLoop("zeros for None", route=rewritten(manual, "allow_unused=True", "materialize_grads=True"))

FUNC_GRAD = VariantLoop(
    "torch.func.grad",
    rewritten(
        train_step,
        """
            loss = run.loss(run.model, microbatch) / window.normalizer
        yield Moment(Phase.FORWARD, index, loss.detach())
        run.route(run.scaler.scale(loss), run.parameters)
""",
        """
            loss = add_func_grad(run, microbatch, window.normalizer)
        yield Moment(Phase.FORWARD, index, loss.detach())
""",
        add_func_grad=add_func_grad,
    ),
)

FUSED_ADAMW = VariantLoop("fused AdamW", fused)

FULL_BATCH = VariantLoop("full batch", full_batch)
