"""A training on every rank, by DDP and by a candidate, run by :func:`gradparity.processes.launch`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import cast

import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from gradparity.faults.on_ranks import RANK_FAULTS
from gradparity.faults.patching_on_ranks import on_ranks_with
from gradparity.parity.lockstep import LockstepRun, Step
from gradparity.parity.random_stream import RandomStream, seed_of
from gradparity.studies.distributed.compare_ranks import RankOutcome, compare_on_every_rank
from gradparity.studies.tasks import TASKS, Batch, Examples, Task
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import Config
from gradparity.training import Window, manual
from gradparity.training.collectives import all_reduced, as_hook, in_rank_order, share
from gradparity.training.distributed import RankRun, tensors_of


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The configuration of a trial. The reference is :func:`gradparity.training.distributed.ddp_step`."""

    config: Config = field(default_factory=Config)
    candidate: str = "manual"
    """``manual``, or ``ddp`` for the null test."""
    fault: str | None = None
    """One of :data:`RANK_FAULTS`, put into the candidate's step."""
    averaging: str = "all_reduced"
    """``all_reduced`` or ``in_rank_order``, for both reference and candidate."""
    examples: int | None = None
    """The number of examples for all ranks together. With few, an epoch has few windows and ends in uneven ones."""
    overflow: tuple[int, int] | None = None
    """The rank and the step at which inputs are too large for fp16."""


def run_trials(trials: Sequence[Trial]) -> list[RankOutcome]:
    """Run each of ``trials`` and return this rank's results."""
    return [run_trial(trial) for trial in trials]


def run_trial(trial: Trial) -> RankOutcome:
    """Run ``trial`` and return this rank's result."""
    task = TASKS[trial.config.tasks[0]]()
    if trial.examples is not None:
        task = replace(task, train=Examples(*(part[: trial.examples] for part in task.train)))
    reference, candidate = rank_lane(trial, task, "ddp"), rank_lane(trial, task, trial.candidate, trial.fault)
    return compare_on_every_rank(reference, candidate, windows_of_rank(trial, task))


def rank_lane(trial: Trial, task: Task, name: str, fault: str | None = None) -> LockstepRun:
    """Return this rank's lane for ``task``. It starts from rank 0's weights, and draws its own dropout masks."""
    rank = dist.get_rank()
    step = on_ranks_with([RANK_FAULTS[fault]] if fault else [])[f"{name}_step"]
    config = replace(trial.config, seed=trial.config.seed + rank)
    lane = build.lane(config, task, "backward")
    averaging = {"all_reduced": all_reduced, "in_rank_order": in_rank_order}[trial.averaging]
    run = RankRun(**vars(lane.run))
    if name == "manual":
        share(tensors_of(run.model))
        run, step = replace(run, route=manual), partial(step, averaging=averaging)
    else:
        # Without it, DDP would wait for a parameter that this rank's loss does not use.
        wrapped = DistributedDataParallel(run.model, find_unused_parameters=config.tasks[0] == "branches")
        if averaging is not all_reduced:
            wrapped.register_comm_hook(None, as_hook(averaging))
        run = replace(run, wrapped=wrapped)
    # Lockstep's type says that a step takes any Run. These steps take a RankRun, and run is one.
    return LockstepRun(run, cast(Step, step), RandomStream(seed_of(config.seed, "dropout"), config.device))


def windows_of_rank(trial: Trial, task: Task) -> Iterator[Window[Batch]]:
    """Yield this rank's windows: with n ranks, every n-th common window. Each rank gets ``steps``, uneven in size."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    common = build.windows(replace(trial.config, steps=trial.config.steps * ranks), task)
    for step, window in enumerate(islice(common, rank, None, ranks)):
        yield _too_large(window) if trial.overflow == (rank, step) else window


def _too_large(window: Window[Batch]) -> Window[Batch]:
    return replace(window, microbatches=tuple(b._replace(inputs=b.inputs * 1e6) for b in window.microbatches))
