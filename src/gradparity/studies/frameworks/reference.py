"""References that frameworks are compared with: the reference step on one rank, and the step with DDP on several."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler, TensorDataset

from gradparity import training
from gradparity.studies import tasks
from gradparity.studies.frameworks.scenario import MICROBATCH, Job
from gradparity.studies.tasks import Examples
from gradparity.trace.process_rank import this_rank, world_size
from gradparity.training import PRECISIONS, Run, Window
from gradparity.training.distributed import RankRun, ddp_step


def reference_loop(job: Job) -> None:
    """Make the reference step, window after window."""
    run = reference_run(job)
    for window in job_windows(job, job_microbatches(job.examples)):
        training.take_step(run, window)


def by_examples(job: Job) -> None:
    """Train with DDP; ranks take one example each in turn, as PyTorch's ``DistributedSampler`` deals them."""
    _with_ddp(job, job_microbatches(Examples(*(part[this_rank() :: world_size()] for part in job.examples))))


def by_shuffled_examples(job: Job) -> None:
    """Train with DDP, in the order of ``DistributedSampler(shuffle=True)``, which Lightning's Trainer inserts."""
    order: list[int] = list(DistributedSampler(TensorDataset(*job.examples), shuffle=True, seed=job.seed))
    _with_ddp(job, job_microbatches(Examples(*(part[order] for part in job.examples))))


def by_microbatches(job: Job) -> None:
    """Train with DDP; ranks take one microbatch each in turn, as Accelerate deals them."""
    _with_ddp(job, job_microbatches(job.examples)[this_rank() :: world_size()])


def _with_ddp(job: Job, microbatches: Sequence[Examples]) -> None:
    run = reference_run(job)
    run = RankRun(**vars(run), wrapped=DistributedDataParallel(run.model))
    for window in job_windows(job, microbatches):
        for _ in ddp_step(run, window):
            pass


def reference_run(job: Job) -> Run:
    """Return the run of the reference, after seeding torch's random numbers with the job's seed."""
    torch.manual_seed(job.seed)
    return Run(
        model=job.model,
        loss=tasks.summed_loss,
        optimizer=job.optimizer,
        scheduler=job.scheduler,
        scaler=job.scaler,
        autocast=partial(PRECISIONS[job.scenario.precision].autocast, "cpu"),
        clip=training.no_clip if job.scenario.max_norm is None else training.clip_by_norm(job.scenario.max_norm),
        route=training.backward,
    )


def job_microbatches(examples: Examples) -> list[Examples]:
    """Return the microbatches that ``job.loader()`` yields."""
    pieces = zip(*(torch.split(part, MICROBATCH) for part in examples), strict=True)
    return [Examples(*piece) for piece in pieces]


def job_windows(job: Job, microbatches: Iterable[Examples]) -> Iterator[Window[Examples]]:
    """Return the windows to train on, one for each step."""
    return training.windows(microbatches, job.scenario.k, tasks.count)
