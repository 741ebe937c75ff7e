"""Lightning Fabric: a hand-written loop, in which Fabric does precision, clipping and checkpoints.

https://lightning.ai/docs/fabric/stable/advanced/gradient_accumulation.html
"""

from typing import Any

from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision

from gradparity.studies.frameworks.scenario import Job, mean_cross_entropy
from gradparity.trace.process_rank import world_size


def train(job: Job) -> None:
    """Train by the loop of the page, but count iterations from 1."""
    _train(job, offset=1)


def as_on_its_page(job: Job) -> None:
    """Train by the loop of the page word for word: ``is_accumulating = iteration % K != 0``, from iteration 0 on."""
    _train(job, offset=0)


def _train(job: Job, offset: int) -> None:
    scenario = job.scenario
    strategy = "ddp" if world_size() > 1 else "auto"
    fabric = Fabric(accelerator="cpu", devices=world_size(), strategy=strategy, **_precision(job))
    fabric.launch()
    fabric.seed_everything(job.seed, verbose=False)
    model, optimizer = fabric.setup(job.model, job.optimizer)
    dataloader = fabric.setup_dataloaders(job.loader())
    state = {"model": model, "optimizer": optimizer, "scheduler": job.scheduler, "iteration": 0}
    if job.resume:
        fabric.load(job.checkpoint / "half.ckpt", state)
    done: Any = state["iteration"]
    steps = 0

    for iteration, (inputs, targets) in enumerate(dataloader):
        if iteration < done:
            continue
        is_accumulating = (iteration + offset) % scenario.k != 0
        with fabric.no_backward_sync(model, enabled=is_accumulating):
            loss = mean_cross_entropy(model(inputs), targets) / scenario.k
            fabric.backward(loss)
        if not is_accumulating:
            if scenario.max_norm is not None:
                fabric.clip_gradients(model, optimizer, max_norm=scenario.max_norm)
            optimizer.step()
            optimizer.zero_grad()
            job.scheduler.step()
            steps += 1
            if steps == job.stop_after:
                fabric.save(job.checkpoint / "half.ckpt", {**state, "iteration": iteration + 1})
                return


def _precision(job: Job) -> dict[str, Any]:
    if job.scenario.precision == "fp16":
        return {"plugins": [MixedPrecision("16-mixed", "cpu", job.scaler)]}
    return {"precision": {"fp32": "32-true", "bf16": "bf16-mixed"}[job.scenario.precision]}
