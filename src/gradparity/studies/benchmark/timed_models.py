"""The models that are timed, of given sizes, and the one window on which every step is made."""

from dataclasses import replace
from functools import partial
from typing import Final

from torch import Tensor, nn

from gradparity.parity.lockstep import LockstepRun
from gradparity.processes.determinism import Device
from gradparity.studies.tasks import TASKS, Batch, Task
from gradparity.studies.tasks.text import CharTransformer
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import Config, OptimizerConfig, PrecisionName
from gradparity.training import Window

SEQUENCES: Final = 16
"""Sequences of up to 64 characters in a microbatch of the transformer: a thousand tokens, which is few."""


def config(
    *, k: int = 1, microbatch: int = SEQUENCES, precision: PrecisionName = "fp32", device: Device = "cpu"
) -> Config:
    """Return a configuration for many steps on one window: its tiny learning rate keeps gradients from vanishing.

    Args:
        k: accumulation steps.
        microbatch: sequences or images in a microbatch.
        precision: as in a :class:`Config`.
        device: of both runs.
    """
    optimizer = OptimizerConfig(lr=1e-7, warmup_steps=1)
    return Config(
        accumulation_steps=k,
        microbatch_size=microbatch,
        precision=precision,
        device=device,
        steps=100_000,
        optimizer=optimizer,
    )


def lanes_and_window(task: Task, loops: tuple[str, ...], training: Config) -> tuple[list[LockstepRun], Window[Batch]]:
    """Return a lane for each of ``loops``, all from the same bits, and the window for all their steps."""
    return [build.lane(training, task, loop) for loop in loops], next(build.windows(training, task))


def unwatched_step(lane: LockstepRun, window: Window[Batch]) -> None:
    """Make one unwatched optimizer step."""
    for _ in lane.step(lane.run, window):
        pass


def parameter_count(lane: LockstepRun) -> int:
    """Return the number of trained parameters."""
    return sum(p.numel() for p in lane.run.parameters)


def transformer(width: int = 320, layers: int = 8) -> Task:
    """Return the character transformer: by default 9.9 million parameters in 101 tensors."""
    return replace(TASKS["transformer"](), build=partial(CharTransformer, width, 8, layers))


def small_transformer() -> Task:
    """Return the same with 0.8 million parameters; its step on a thousand tokens takes one core about 100 ms."""
    return transformer(128, 4)


def wide_mlp(width: int = 690) -> Task:
    """Return an MLP with three hidden layers: by default a million parameters, most of them in two tensors."""
    return replace(TASKS["digits_mlp"](), build=partial(_mlp, width))


def _mlp(width: int) -> nn.Module:
    hidden = [nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.GELU(), *hidden, nn.Linear(width, 10))


def many_tensors(tensors: int) -> Task:
    """Return a model that adds up ``tensors`` parameters of ten elements each."""
    return replace(TASKS["digits_mlp"](), build=partial(ManyTensors, tensors))


class ManyTensors(nn.Module):
    """Ten logits for each image: the mean of its pixels times the sum of all parameters."""

    def __init__(self, tensors: int) -> None:
        super().__init__()
        self.parts = nn.ParameterList(nn.init.normal_(nn.Parameter(Tensor(10))) for _ in range(tensors))

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[N, 1, 8, 8]`` to logits ``[N, 10]``."""
        first, *others = self.parts
        total: Tensor = sum(others, start=first)
        return images.flatten(1).mean(1, keepdim=True) * total
