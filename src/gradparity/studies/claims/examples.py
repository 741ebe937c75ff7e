"""Small models, data and trainings to check claims on, and functions that put their results into words."""

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, SparseAdam

from gradparity.parity.bits import same_bits
from gradparity.parity.lockstep import Comparison, lockstep
from gradparity.parity.step_metrics import StepMetrics, StepMetricsReader
from gradparity.parity.verdict import Verdict as LockstepVerdict
from gradparity.parity.verdict import verdict_of
from gradparity.studies.tasks import TASKS
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import ClipConfig, Config, OptimizerConfig, PrecisionName, ScalerConfig
from gradparity.training import Route

ALL_OPTIMIZERS: list[type[Any]] = [
    kind
    for kind in vars(torch.optim).values()
    if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
]
"""Every optimizer of ``torch.optim``."""

CLIP = ClipConfig(threshold=0.05)
"""A threshold below every gradient norm here, so that every step is clipped."""


def batch(n: int = 1000) -> Tensor:
    """Return ``[n, 2]`` float64 samples in [-1, 1), always the same ones, as a leaf that requires grad."""
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1).requires_grad_()


def network(inputs: int = 2, hidden: int = 8, layers: int = 1) -> nn.Sequential:
    """Return a float64 perceptron ``[n, inputs]`` -> ``[n, 1]``, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        widths = [inputs] + [hidden] * layers
        blocks = [module for pair in pairwise(widths) for module in (nn.Linear(*pair), nn.Tanh())]
        return nn.Sequential(*blocks, nn.Linear(hidden, 1)).double()


def error_message(attempt: Callable[[], object]) -> str:
    """Return the first clause of the error that ``attempt`` raises, or ``""`` if it raises none."""
    try:
        attempt()
    except (RuntimeError, TypeError) as error:
        return re.split(r"\. | \(|\n", str(error))[0].rstrip(".")
    return ""


def ending(refused: str) -> str:
    """Return a result of :func:`error_message` as the end of a sentence: ``raises "..."``, or ``runs``."""
    return f'raises "{refused}"' if refused else "runs"


def same_tensors(ours: Iterable[Tensor | None], theirs: Iterable[Tensor | None]) -> bool:
    """Return whether two sequences of tensors have the same bits, and no tensor is ``None``."""
    return all(a is not None and b is not None and same_bits(a, b) for a, b in zip(ours, theirs, strict=True))


def count_filled(tensors: Iterable[Tensor]) -> int:
    """Count those of ``tensors`` that have a ``.grad``."""
    return sum(tensor.grad is not None for tensor in tensors)


def factor_over(gradient: Tensor | None, once: Tensor) -> float:
    """Return the factor of ``gradient`` over ``once``, to nine decimals; for ``None`` it is 0."""
    return 0.0 if gradient is None else round(float((gradient * once).sum() / once.square().sum()), 9)


def largest_error(have: Tensor, want: Tensor) -> float:
    """Return the largest absolute difference."""
    return (have - want).abs().max().item()


def trained_by(kind: type[Any], route: Route, microbatches: int = 2, steps: int = 3) -> tuple[Tensor, Tensor]:
    """Train an embedding by ``route`` and an optimizer of this ``kind``; return its weights before and after.

    It is an embedding since Muon takes matrices only, and SparseAdam sparse gradients only. The step takes a closure
    since LBFGS requires one and the others accept one.
    """
    weights = torch.linspace(-1, 1, 24).reshape(6, 4)
    model = nn.Embedding.from_pretrained(weights.clone(), freeze=False, sparse=kind is SparseAdam)
    optimizer: Any = kind(model.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        losses = [model(torch.tensor([i, i + 1, 3])).square().mean() for i in range(microbatches)]
        for loss in losses:
            route(loss / microbatches, list(model.parameters()))
        return torch.stack(losses).mean().detach()

    for _ in range(steps):
        optimizer.step(closure)
    return weights, model.weight.detach()


def train_both_ways(
    precision: PrecisionName = "fp32", clip: ClipConfig = CLIP
) -> tuple[LockstepVerdict, list[StepMetrics]]:
    """Train a perceptron on digits by both routes in lockstep: six windows of three microbatches.

    In fp16 the scale starts so high that the first step overflows and is skipped.

    Returns:
        The verdict of the comparison, and the readings of each step.
    """
    config = Config(
        candidate="manual",
        precision=precision,
        clip=clip,
        accumulation_steps=3,
        microbatch_size=8,
        steps=6,
        optimizer=OptimizerConfig(warmup_steps=2),
        scaler=ScalerConfig(init_scale=2.0**30, backoff_factor=2.0**-20),
    )
    task = TASKS["digits_mlp"]()
    lanes = build.lanes(config, task)
    reader, steps = StepMetricsReader(lanes[0].run), list[StepMetrics]()

    def read(found: Comparison) -> None:
        if readings := reader.take(found.reference):
            steps.append(readings)

    return verdict_of(lockstep(*lanes, build.windows(config, task)), read), steps


def lockstep_in_words(verdict: LockstepVerdict) -> str:
    """Return in words how much a lockstep compared, and how much of it differs."""
    differing = sum(cell.differing for cell in verdict.cells.values())
    compared = sum(cell.compared for cell in verdict.cells.values())
    return (
        f"{differing} of {compared:,} values ({verdict.numbers:,} numbers) differ in {verdict.steps} steps of "
        "3 microbatches"
    )
