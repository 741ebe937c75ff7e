"""Lightning's Trainer: automatic optimization, and manual optimization as on the page of that name.

https://lightning.ai/docs/pytorch/stable/model/manual_optimization.html
"""

from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from gradparity.studies.frameworks.scenario import Job, mean_cross_entropy
from gradparity.trace.process_rank import world_size


class Automatic(lightning.LightningModule):
    """Automatic optimization: the Trainer accumulates, scales, clips and steps."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.model = job.model
        self.job = job

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one microbatch."""
        return self.loss(batch)

    def loss(self, batch: list[Tensor]) -> Tensor:
        """Return the mean loss over the tokens of a microbatch."""
        inputs, targets = batch
        return mean_cross_entropy(self.model(inputs), targets)

    def configure_optimizers(self) -> Any:
        """Return the optimizer, and the schedule, which advances with each step."""
        return {"optimizer": self.job.optimizer, "lr_scheduler": {"scheduler": self.job.scheduler, "interval": "step"}}


class Manual(Automatic):
    """Manual optimization: the module itself accumulates, clips and steps.

    It follows the sections "Gradient Accumulation", "Gradient Clipping" and "Scheduling".
    """

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Train on one microbatch, and step after each window."""
        n, max_norm = self.job.scenario.k, self.job.scenario.max_norm
        optimizer, scheduler = cast(Any, self.optimizers()), cast(Any, self.lr_schedulers())
        # scale losses by 1/N (for N batches of gradient accumulation)
        loss = self.loss(batch) / n
        self.manual_backward(loss)
        # accumulate gradients of N batches
        if (batch_idx + 1) % n == 0:
            if max_norm is not None:
                self.clip_gradients(optimizer, gradient_clip_val=max_norm, gradient_clip_algorithm="norm")
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        return loss


def automatic(job: Job) -> None:
    """Train by automatic optimization; the Trainer's arguments set everything."""
    fit(job, Automatic(job), accumulate_grad_batches=job.scenario.k, gradient_clip_val=job.scenario.max_norm)


def manual(job: Job) -> None:
    """Train by manual optimization; the Trainer neither accumulates nor clips."""
    fit(job, Manual(job))


def fit(job: Job, module: Automatic, **arguments: Any) -> None:
    """Train for one epoch, or for the half of it that the job asks for."""
    lightning.seed_everything(job.seed, verbose=False)
    if job.stop_after:
        saving = ModelCheckpoint(dirpath=job.checkpoint, filename="half", every_n_train_steps=job.stop_after)
        arguments |= {"max_steps": job.stop_after, "callbacks": [saving]}
    if job.scenario.precision == "fp16":
        # Trainer(accelerator="cpu", precision="16-mixed") computes in bf16; the plugin in fp16.
        arguments["plugins"] = [MixedPrecision("16-mixed", "cpu", job.scaler)]
    else:
        arguments["precision"] = {"fp32": "32-true", "bf16": "bf16-mixed"}[job.scenario.precision]
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=world_size(),
        strategy="ddp" if world_size() > 1 else "auto",
        max_epochs=1,
        logger=False,
        enable_checkpointing=job.stop_after is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )
    trainer.fit(module, job.loader(), ckpt_path=job.checkpoint / "half.ckpt" if job.resume else None)
