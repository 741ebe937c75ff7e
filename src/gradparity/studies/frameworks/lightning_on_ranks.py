"""Lightning where there are several ranks: what manual optimization has to say there, and what autograd.grad does not.

https://lightning.ai/docs/pytorch/stable/api/lightning.pytorch.core.optimizer.LightningOptimizer.html
"""

from typing import Any, cast

from torch import Tensor

from gradparity import training
from gradparity.studies.frameworks.lightning import Automatic, Manual, fit
from gradparity.studies.frameworks.scenario import Job
from gradparity.training.exchange import average


class Toggled(Manual):
    """Manual optimization that exchanges gradients once a window, by ``toggle_model``'s ``sync_grad`` of that page."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """One microbatch, and a step after each window."""
        n, max_norm = self.job.scenario.k, self.job.scenario.max_norm
        optimizer, scheduler = cast(Any, self.optimizers()), cast(Any, self.lr_schedulers())
        last = (batch_idx + 1) % n == 0 or self.trainer.is_last_batch
        with optimizer.toggle_model(sync_grad=last):
            loss = self.loss(batch) / n
            self.manual_backward(loss)
        if last:
            self.clip_gradients(optimizer, gradient_clip_val=max_norm, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        return loss


class ByAutogradGrad(Automatic):
    """The gradients are wired into ``p.grad`` by hand. On one rank that makes no difference."""

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """In the place of ``loss.backward()``."""
        training.manual(loss, list(self.model.parameters()))


class Averaged(ByAutogradGrad):
    """The same, and the exchange that DDP makes in hooks which autograd.grad does not call."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The loss of one microbatch; whether it is the last of its window, ``backward`` has to know."""
        self.last = (batch_idx + 1) % self.job.scenario.k == 0 or self.trainer.is_last_batch
        return super().training_step(batch, batch_idx)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Once a window, before anything looks at the gradients."""
        super().backward(loss)
        if self.last:
            average(list(self.model.parameters()))


def toggled(job: Job) -> None:
    """The Trainer has no say in accumulation and clipping."""
    fit(job, Toggled(job))


def by_autograd_grad(job: Job) -> None:
    """All but ``backward`` by the Trainer's arguments."""
    fit(job, ByAutogradGrad(job), accumulate_grad_batches=job.scenario.k, gradient_clip_val=job.scenario.max_norm)


def averaged(job: Job) -> None:
    """As :func:`by_autograd_grad`."""
    fit(job, Averaged(job), accumulate_grad_batches=job.scenario.k, gradient_clip_val=job.scenario.max_norm)
