"""Lanes and windows built from a configuration: two lanes that start in the same bits, and the windows for both."""

from collections.abc import Iterator
from functools import partial
from itertools import chain, count, islice

import torch

from gradparity import training
from gradparity.faults import FAULTS, loop_with
from gradparity.parity.lockstep import LockstepRun, Step
from gradparity.parity.random_stream import RandomStream, seed_of
from gradparity.studies import tasks
from gradparity.studies.tasks import Batch, Task
from gradparity.studies.train_two_ways.config import ClipConfig, Config
from gradparity.training import PRECISIONS, Clip, Route, Run, Window

ROUTES_BY_NAME = {"backward": training.backward, "manual": training.manual, "frugal": training.frugal}
OPTIMIZERS_BY_NAME = {"adamw": training.adamw, "sgd": training.sgd_momentum}


def lanes(config: Config, task: Task) -> tuple[LockstepRun, LockstepRun]:
    """Return the reference, which uses ``.backward()``, and the candidate. They share no tensor."""
    return lane(config, task, "backward"), lane(config, task, config.candidate)


def lane(config: Config, task: Task, loop: str) -> LockstepRun:
    """Return a run of ``task`` from its seeds, with the step and route that ``loop`` names."""
    step, route = loop_named(loop)
    precision, device = PRECISIONS[config.precision], config.device
    with RandomStream(seed_of(config.seed, "weights")).active():
        model = task.build().to(device, precision.parameters)
    optimizer = OPTIMIZERS_BY_NAME[config.optimizer.name](
        model.parameters(), lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay
    )
    run = Run(
        model=model,
        loss=task.loss,
        optimizer=optimizer,
        scheduler=training.warmup_cosine(
            optimizer, warmup_steps=config.optimizer.warmup_steps, total_steps=config.steps
        ),
        scaler=precision.scaler(
            device,
            init_scale=config.scaler.init_scale,
            growth_interval=config.scaler.growth_interval,
            backoff_factor=config.scaler.backoff_factor,
        ),
        autocast=partial(precision.autocast, device),
        clip=training.in_order_of(optimizer, clip_of(config.clip)),
        route=route,
    )
    return LockstepRun(run, step, RandomStream(seed_of(config.seed, "dropout"), device))


def loop_named(name: str) -> tuple[Step, Route]:
    """Return the step and the route of a candidate."""
    if name in FAULTS:
        return loop_with(FAULTS[name])
    return training.train_step, ROUTES_BY_NAME[name]


def clip_of(config: ClipConfig) -> Clip:
    """Return the clipping that ``config`` describes."""
    if config.by == "none":
        return training.no_clip
    return {"norm": training.clip_by_norm, "value": training.clip_by_value}[config.by](config.threshold)


def windows(config: Config, task: Task, done: int = 0) -> Iterator[Window[Batch]]:
    """Return ``config.steps`` windows. Each epoch has its own order and its own partial last window.

    The first ``done`` are skipped, for lanes that resume from a checkpoint.
    """
    examples = tasks.move_examples(task.train, config.device, PRECISIONS[config.precision].parameters)

    def epoch(number: int) -> Iterator[Window[Batch]]:
        order = torch.Generator().manual_seed(seed_of(config.seed, f"order of epoch {number}"))
        microbatches = task.batches(examples, config.microbatch_size, order)
        return training.windows(microbatches, config.accumulation_steps, tasks.count)

    return islice(chain.from_iterable(map(epoch, count())), done, config.steps)
