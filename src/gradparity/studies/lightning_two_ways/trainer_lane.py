"""Lightning's Trainer as a lane of lockstep: its own accumulation, precision, clipping and schedule, stopped by hooks.

Four ways to fill ``p.grad`` under it: automatic optimization, and manual optimization as in Lightning's documentation.
Each runs unchanged, and with the module's ``backward`` hook overridden to wire ``autograd.grad`` by hand.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, cast, get_args

import lightning
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from gradparity.parity.lockstep import LockstepRun
from gradparity.studies.lightning_two_ways.stepwise_trainer import moments_of
from gradparity.studies.tasks import Batch, count
from gradparity.studies.train_two_ways.config import Config
from gradparity.training import Moment, Phase, Run, Window, manual

Way = Literal["automatic", "automatic, autograd.grad", "manual", "manual, autograd.grad"]
WAYS: tuple[Way, ...] = get_args(Way)


class LitTask(lightning.LightningModule):
    """A run as a LightningModule that calls ``stop`` at every phase of a step."""

    def __init__(self, run: Run, way: Way, accumulation_steps: int, max_norm: float | None) -> None:
        super().__init__()
        self.model = run.model
        self.run = run
        self.way = way
        self.automatic_optimization = way.startswith("automatic")
        self.accumulation_steps = accumulation_steps
        self.max_norm = max_norm
        self.stop: Callable[[Moment], None]
        self.microbatch = 0
        self.stepping = False

    def configure_optimizers(self) -> Any:
        """Return the run's own optimizer and schedule; the schedule advances with each optimizer step."""
        return {"optimizer": self.run.optimizer, "lr_scheduler": {"scheduler": self.run.scheduler, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean loss of one microbatch; automatic optimization divides it by the accumulation steps."""
        loss = self.run.loss(self.model, batch) / count(batch)
        if not self.automatic_optimization:
            self.optimize_by_hand(loss, batch_idx)
        return loss

    def optimize_by_hand(self, loss: Tensor, batch_idx: int) -> None:
        """Train on one microbatch as in Lightning's "Manual Optimization"; the clipping is that of issue 18089."""
        optimizer, scheduler = cast(Any, self.optimizers()), cast(Any, self.lr_schedulers())
        if batch_idx % self.accumulation_steps == 0:
            optimizer.zero_grad()
        self.manual_backward(loss / self.accumulation_steps)
        if (batch_idx + 1) % self.accumulation_steps == 0 or self.trainer.is_last_batch:
            if not self.run.scaler.is_enabled():
                self.stop(Moment(Phase.UNSCALED))
            self.clip_gradients(optimizer, gradient_clip_val=self.max_norm, gradient_clip_algorithm="norm")
            optimizer.step()
            scheduler.step()

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Fill ``p.grad``: the one line of Lightning that the manual route replaces."""
        share = loss.detach() / self.run.scaler.get_scale()
        self.stop(Moment(Phase.FORWARD, self.microbatch, share))
        if self.way.endswith("autograd.grad"):
            manual(loss, self.run.parameters)
        else:
            super().backward(loss, *args, **kwargs)

    def on_after_backward(self) -> None:
        """Stop at the accumulated phase."""
        self.stop(Moment(Phase.ACCUMULATED, self.microbatch))
        self.microbatch += 1

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Stop at the unscaled phase, unless :meth:`optimize_by_hand` did.

        Manual optimization has clipped by then, so stop at the clipped phase too.
        """
        self.stepping = True
        if self.automatic_optimization or self.run.scaler.is_enabled():
            self.stop(Moment(Phase.UNSCALED))
        if not self.automatic_optimization:
            self.stop(Moment(Phase.CLIPPED))

    def configure_gradient_clipping(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
        """Clip, and stop at the clipped phase."""
        super().configure_gradient_clipping(optimizer, *args, **kwargs)
        self.stop(Moment(Phase.CLIPPED))

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop at the stepped phase, if this microbatch was the last of a window."""
        if self.stepping:
            self.stop(Moment(Phase.STEPPED))
            self.microbatch, self.stepping = 0, False


def under_lightning(lane: LockstepRun, config: Config, way: Way, microbatches: Sequence[Batch]) -> LockstepRun:
    """Return ``lane`` with the Trainer in place of its step, training on ``microbatches`` in one epoch.

    The Trainer clips by norm if ``config`` does, and not at all otherwise.
    """
    run, max_norm = lane.run, config.clip.threshold if config.clip.by == "norm" else None
    module = LitTask(run, way, config.accumulation_steps, max_norm)
    by_trainer: dict[str, Any] = {"accumulate_grad_batches": config.accumulation_steps, "gradient_clip_val": max_norm}

    # A separate generator: a DataLoader, even one without workers, draws a seed for workers from the global one.
    loader = DataLoader(cast(Any, microbatches), batch_size=None, generator=torch.Generator())

    def fit(stop: Callable[[Moment], None]) -> None:
        module.stop = stop
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            # Hide advice on workers and logging, and a correct warning on the schedule: lockstep reports that itself.
            warnings.simplefilter("ignore")
            lightning.Trainer(
                accelerator={"cpu": "cpu", "cuda": "gpu"}[config.device],
                devices=1,
                max_epochs=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                **precision_of(config, run),
                **(by_trainer if module.automatic_optimization else {}),
            ).fit(module, loader)

    moments = moments_of(fit)

    def step(_: Run, __: Window[Any]) -> Iterator[Moment]:
        for moment in moments:
            yield moment
            if moment.phase == Phase.STEPPED:
                return

    return replace(lane, step=step)


def precision_of(config: Config, run: Run) -> dict[str, Any]:
    """Return the Trainer's arguments for the configured precision.

    ``Trainer(accelerator="cpu", precision="16-mixed")`` silently computes in bf16, so fp16 is set by its plugin.
    """
    if config.precision == "fp16":
        return {"plugins": [MixedPrecision("16-mixed", config.device, run.scaler)]}
    return {"precision": {"fp64": "64-true", "fp32": "32-true", "bf16": "bf16-mixed"}[config.precision]}
