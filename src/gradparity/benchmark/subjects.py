"""What is trained while it is timed: models of a given size, and one window on which every step is made."""

from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from gradparity import build
from gradparity.config import Config, OptimizerConfig, PrecisionName
from gradparity.parity.lockstep import Lane
from gradparity.tasks import TASKS, Batch, Task
from gradparity.tasks.text import CharTransformer
from gradparity.training import Window


def subject(
    task: Task, loops: tuple[str, ...], *, k: int = 1, microbatch: int = 4, precision: PrecisionName = "fp32"
) -> tuple[list[Lane], Window[Batch]]:
    """A lane for each of ``loops``, all from the same bits, and a window of ``k`` microbatches for all their steps.

    The learning rate is tiny, so that thousands of steps on one window do not wear the gradients away.
    """
    config = Config(
        accumulation_steps=k,
        microbatch_size=microbatch,
        precision=precision,
        steps=1_000_000,
        optimizer=OptimizerConfig(lr=1e-7, warmup_steps=1),
    )
    return [build.lane(config, task, loop) for loop in loops], next(build.windows(config, task))


def step(lane: Lane, window: Window[Batch]) -> None:
    """One optimizer step that nobody looks at."""
    for _ in lane.step(lane.run, window):
        pass


def transformer(width: int = 320, layers: int = 8) -> Task:
    """The character transformer: 9.9 million parameters in 102 tensors."""
    return replace(TASKS["transformer"](), build=partial(CharTransformer, width, 8, layers))


def mlp(width: int = 690) -> Task:
    """Two hidden layers between 64 pixels and 10 logits: a million parameters in 8 tensors, most of them in two."""
    return replace(TASKS["digits_mlp"](), build=partial(_mlp, width))


def _mlp(width: int) -> nn.Module:
    hidden = [nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()]
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.GELU(), *hidden, nn.Linear(width, 10))


def many(tensors: int) -> Task:
    """A model that adds up ``tensors`` parameters of ten elements each."""
    return replace(TASKS["digits_mlp"](), build=partial(Many, tensors))


class Many(nn.Module):
    """Ten logits for each image, from the sum of its pixels and that of all parameters."""

    def __init__(self, tensors: int) -> None:
        super().__init__()
        self.parts = nn.ParameterList(nn.init.normal_(nn.Parameter(Tensor(10))) for _ in range(tensors))

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 1, 8, 8]`` → ``[N, 10]``."""
        total = sum(self.parts[1:], start=self.parts[0])
        return images.flatten(1).mean(1, keepdim=True) * total
