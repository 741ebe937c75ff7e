"""PyTorch Ignite: ``create_supervised_trainer``, and for clipping, which it lacks, a custom step in an ``Engine``.

https://docs.pytorch.org/ignite/generated/ignite.engine.create_supervised_trainer.html and
https://docs.pytorch.org/ignite/generated/ignite.handlers.param_scheduler.LRScheduler.html
"""

from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine, Events, create_supervised_trainer
from ignite.handlers import Checkpoint, DiskSaver
from ignite.handlers.param_scheduler import LRScheduler
from ignite.utils import manual_seed
from torch import Tensor, nn

from gradparity.studies.frameworks.scenario import Job, mean_cross_entropy


def train(job: Job) -> None:
    """Train by the helper, or by a custom step if it clips; handlers do the schedule and checkpoints."""
    manual_seed(job.seed)
    scenario = job.scenario
    if scenario.max_norm is None:
        trainer = create_supervised_trainer(
            job.model,
            job.optimizer,
            mean_cross_entropy,
            amp_mode=None if scenario.precision == "fp32" else "amp",
            scaler=job.scaler if scenario.precision == "fp16" else False,
            gradient_accumulation_steps=scenario.k,
        )
    else:
        trainer = Engine(clipped_step(job, scenario.max_norm))
    scheduler = LRScheduler(job.scheduler)
    trainer.add_event_handler(Events.ITERATION_STARTED(event_filter=lambda _, i: (i - 1) % scenario.k == 0), scheduler)

    everything = {"trainer": trainer, "model": job.model, "optimizer": job.optimizer, "scheduler": scheduler}
    if job.stop_after:
        last = job.stop_after * scenario.k
        saving = Checkpoint(everything, DiskSaver(str(job.checkpoint)), filename_pattern="half.pt")
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=last), saving)
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=last), trainer.terminate)
    if job.resume:
        Checkpoint.load_objects(everything, torch.load(job.checkpoint / "half.pt", weights_only=True))
    trainer.run(job.loader(), max_epochs=1)


def clipped_step(job: Job, max_norm: float) -> Callable[[Engine, Any], float]:
    """Return the step that the helper makes, with clipping added."""
    k, scaler = job.scenario.k, job.scaler
    dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[job.scenario.precision]

    def step(engine: Engine, batch: list[Tensor]) -> float:
        if (engine.state.iteration - 1) % k == 0:
            job.optimizer.zero_grad()
        job.model.train()
        x, y = batch
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = mean_cross_entropy(job.model(x), y) / k
        scaled: Any = scaler.scale(loss)
        scaled.backward()
        if engine.state.iteration % k == 0:
            scaler.unscale_(job.optimizer)
            nn.utils.clip_grad_norm_(job.model.parameters(), max_norm)
            scaler.step(job.optimizer)
            scaler.update()
        return loss.item()

    return step
