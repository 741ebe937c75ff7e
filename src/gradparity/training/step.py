"""One optimizer step, in the right order. This is the page to copy.

Delete the ``yield`` lines and a plain training step is left. With them it is a generator that stops at each
named phase, so that someone else can look at the gradients, or at those of a second run, before it goes on.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gradparity.training.clipping import Clip
from gradparity.training.phases import Moment, Phase
from gradparity.training.routes import Route
from gradparity.training.windows import Window


@dataclass(frozen=True)
class Run:
    """Everything that takes part in training one model."""

    model: nn.Module
    loss: Callable[[nn.Module, Any], Tensor]
    """Takes the model and a microbatch, returns the loss *summed* over its samples or tokens, a scalar.

    Sum in fp32: a sum overflows fp16, which ends at 65504, sooner than a mean does.
    """
    optimizer: Optimizer
    scheduler: LRScheduler
    scaler: GradScaler
    autocast: Callable[[], AbstractContextManager[Any]]
    clip: Clip
    route: Route

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the optimizer updates, each once; those that are not the model's come last.

        Derived, because a clip over any other set cuts too much or too little. In the order of the model, because
        the order of a sum decides its rounding, and most loops clip ``model.parameters()``.
        """
        trained = dict.fromkeys(p for group in self.optimizer.param_groups for p in group["params"])
        return list(dict.fromkeys([*(p for p in self.model.parameters() if p in trained), *trained]))


def train_step(run: Run, window: Window[Any]) -> Iterator[Moment]:
    """Make one optimizer step of ``run`` on ``window``, stopping at every phase.

    Source: PyTorch's notes "Automatic Mixed Precision examples", sections "Gradient accumulation" and "Gradient
    clipping", put together.
    """
    # None, not zeros: a parameter without a gradient is left alone, one with a zero gradient is still decayed.
    run.optimizer.zero_grad(set_to_none=True)

    for index, microbatch in enumerate(window.microbatches):
        with run.autocast():
            # The whole window's count: gradients are sums, so dividing each loss divides their sum.
            loss = run.loss(run.model, microbatch) / window.normalizer
        yield Moment(Phase.FORWARD, index, loss.detach())
        run.route(run.scaler.scale(loss), run.parameters)
        yield Moment(Phase.ACCUMULATED, index)

    # Once per window: after this the gradients have their true size, and infs have been looked for.
    run.scaler.unscale_(run.optimizer)
    yield Moment(Phase.UNSCALED)
    # After unscale_: a threshold is meant for true gradients, not for ones 65536 times as large.
    run.clip(run.parameters)
    yield Moment(Phase.CLIPPED)

    scale = run.scaler.get_scale()
    run.scaler.step(run.optimizer)  # skips the optimizer where a gradient is inf or NaN; a disabled scaler never skips
    run.scaler.update()
    # The scale falls only after a skipped step, and a step that was not made does not count for the schedule.
    # At 1e-38 it can fall no further, and every step is skipped: its inverse is infinite.
    if run.scaler.get_scale() >= scale > 1e-38:
        run.scheduler.step()
    yield Moment(Phase.STEPPED)


def take_step(run: Run, window: Window[Any]) -> None:
    """Make one whole optimizer step. :func:`train_step` is a generator: it makes the step only if it is exhausted."""
    for _ in train_step(run, window):
        pass
