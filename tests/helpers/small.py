"""Small versions of the real tasks, so that hundreds of trainings fit into a minute."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

from torch.amp.grad_scaler import GradScaler

from gradparity.parity import verdict
from gradparity.parity.lockstep import Comparison, LockstepRun, lockstep
from gradparity.parity.verdict import Verdict
from gradparity.studies.tasks import TASKS, Examples, Task
from gradparity.studies.tasks.text import CharTransformer
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import Config

MICROBATCH = 4
MICROBATCHES = 11
"""Of an epoch, the last with two samples: for K = 3 and K = 4 its last window is partial, and uneven."""

STEPS = 7
"""Enough for the scale to grow after three steps, overflow in the fourth, and go on."""


@cache
def small_task(name: str) -> Task:
    task = TASKS[name]()
    n = MICROBATCH * (MICROBATCHES - 1) + 2
    short = Examples(task.train.inputs[:n], task.train.targets[:n])
    if name == "transformer":
        return replace(task, train=short, build=partial(CharTransformer, width=16, heads=2, layers=1))
    return replace(task, train=short)


def small_config(**fields) -> Config:
    return Config(**{"microbatch_size": MICROBATCH, "steps": STEPS, "accumulation_steps": 3, **fields})


def scaler_that_overflows_once(enabled: bool, device: str = "cpu") -> GradScaler:
    """Absurd factors, so that of seven steps exactly the fourth is skipped, whatever the model."""
    return GradScaler(
        device, init_scale=2.0**4, growth_factor=2.0**30, backoff_factor=2.0**-30, growth_interval=3, enabled=enabled
    )


def small_lanes(config: Config, task: Task | None = None) -> list[LockstepRun]:
    task = task or small_task(config.task)
    return [
        replace(
            lane, run=replace(lane.run, scaler=scaler_that_overflows_once(config.precision == "fp16", config.device))
        )
        for lane in build.lanes(config, task)
    ]


def comparisons(config: Config, lanes: list[LockstepRun] | None = None) -> Iterator[Comparison]:
    return lockstep(*(lanes or small_lanes(config)), build.windows(config, small_task(config.task)))


def verdict_of(config: Config, lanes: list[LockstepRun] | None = None) -> Verdict:
    return verdict.verdict_of(comparisons(config, lanes))
