"""Hugging Face Accelerate: ``accumulate``, and the recipe on the same page for samples of variable size.

https://huggingface.co/docs/accelerate/usage_guides/gradient_accumulation
"""

from contextlib import nullcontext
from itertools import islice
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import GradScalerKwargs, set_seed

from gradparity.parity.batch import PADDING
from gradparity.studies.frameworks.scenario import Job, mean_cross_entropy, summed_cross_entropy


def train(job: Job) -> None:
    """Train with ``accumulate``: optimizer and schedule do nothing until the last microbatch of a window."""
    accelerator, model, optimizer, dataloader, scheduler = prepared(job)
    k, done = job.scenario.k, 0
    if job.resume:
        accelerator.load_state(str(job.checkpoint / "half"))
        done = k * (job.scenario.save_after or 0)
        dataloader = accelerator.skip_first_batches(dataloader, done)

    for step, (inputs, targets) in enumerate(dataloader, start=done):
        with accelerator.accumulate(model):
            loss = mean_cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            if accelerator.sync_gradients and job.scenario.max_norm is not None:
                accelerator.clip_grad_norm_(model.parameters(), job.scenario.max_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        if job.stop_after and step + 1 == job.stop_after * k:
            accelerator.save_state(str(job.checkpoint / "half"))
            return


def by_token_count(job: Job) -> None:
    """Train as in "Gradient accumulation on training samples of variable size": count the window's tokens first."""
    accelerator, model, optimizer, dataloader, scheduler = prepared(job)
    k, done = job.scenario.k, 0
    total_updates = -(-len(dataloader) // k)
    if job.resume:
        accelerator.load_state(str(job.checkpoint / "half"))
        done = job.scenario.save_after or 0
        dataloader = accelerator.skip_first_batches(dataloader, done * k)

    iterator = iter(dataloader)
    for update_step in range(done, total_updates):
        batch_samples = list(islice(iterator, k))
        num_items_in_batch = sum(targets.ne(PADDING).sum() for _, targets in batch_samples)
        num_items_in_batch = accelerator.gather(num_items_in_batch).sum().item()
        for i, (inputs, targets) in enumerate(batch_samples):
            # without no_sync, several ranks would exchange gradients after every microbatch
            last = i == len(batch_samples) - 1
            with nullcontext() if last else accelerator.no_sync(model):
                loss = summed_cross_entropy(model(inputs), targets)
                # times k: backward() divides by the accumulation steps again
                loss = (loss * k * accelerator.num_processes) / num_items_in_batch
                accelerator.backward(loss)
        if job.scenario.max_norm is not None:
            accelerator.clip_grad_norm_(model.parameters(), job.scenario.max_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        if job.stop_after == update_step + 1:
            accelerator.save_state(str(job.checkpoint / "half"))
            return


def prepared(job: Job) -> tuple[Accelerator, Any, Any, Any, Any]:
    """Return an Accelerator, and the model, optimizer, loader and scheduler that it prepares from the job."""
    # These exist once per process, as a process usually trains once.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    set_seed(job.seed)
    accelerator = Accelerator(
        cpu=True,
        gradient_accumulation_steps=job.scenario.k,
        mixed_precision={"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[job.scenario.precision],
        kwargs_handlers=[GradScalerKwargs(init_scale=job.scaler.get_scale())],
    )
    return accelerator, *accelerator.prepare(job.model, job.optimizer, job.loader(), job.scheduler)
