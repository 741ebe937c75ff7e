"""Lightning on several ranks: manual optimization must control the exchange, and autograd.grad leaves it out.

https://lightning.ai/docs/pytorch/stable/api/lightning.pytorch.core.optimizer.LightningOptimizer.html
"""

from typing import Any, cast

from torch import Tensor

from gradparity import training
from gradparity.studies.frameworks.lightning import Automatic, Manual, fit
from gradparity.studies.frameworks.scenario import Job
from gradparity.training.collectives import average


class Toggled(Manual):
    """Manual optimization that exchanges gradients once per window, by ``sync_grad`` of ``toggle_model``."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Train on one microbatch, and step after each window."""
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
    """Gradients from ``autograd.grad``, wired into ``p.grad`` by hand. On one rank that makes no difference."""

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Fill ``p.grad``, in place of ``loss.backward()``."""
        training.manual(loss, list(self.model.parameters()))


class Averaged(ByAutogradGrad):
    """The same, with the exchange that DDP makes in hooks; autograd.grad does not call them."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one microbatch; note for ``backward`` whether it is the last of its window."""
        self.last = (batch_idx + 1) % self.job.scenario.k == 0 or self.trainer.is_last_batch
        return super().training_step(batch, batch_idx)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Fill ``p.grad``; average it over the ranks once per window, before anything reads it."""
        super().backward(loss)
        if self.last:
            average(list(self.model.parameters()))


def toggled(job: Job) -> None:
    """Train by manual optimization with ``toggle_model``; the Trainer neither accumulates nor clips."""
    fit(job, Toggled(job))


def by_autograd_grad(job: Job) -> None:
    """Train with ``autograd.grad`` in ``backward``; the Trainer's arguments set everything else."""
    fit(job, ByAutogradGrad(job), accumulate_grad_batches=job.scenario.k, gradient_clip_val=job.scenario.max_norm)


def averaged(job: Job) -> None:
    """Train as :func:`by_autograd_grad` does, and average the gradients over the ranks."""
    fit(job, Averaged(job), accumulate_grad_batches=job.scenario.k, gradient_clip_val=job.scenario.max_norm)
