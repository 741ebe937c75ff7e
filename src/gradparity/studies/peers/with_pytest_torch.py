"""The checks of pytest-torch (https://github.com/AKJ7/pytest-torch) on a loop, as its documentation teaches.

The checks call the user's step, with batches that the checks choose. Here that step is the reference step with the
fault in it. For the check that stops between two steps and resumes, it is an epoch of the reference loop.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest_torch
import torch
import torch.nn.functional as F
from pytest_torch.training_loop import TrainingSetup
from torch.optim.lr_scheduler import LambdaLR

from gradparity.faults import Fault, stress
from gradparity.parity.batch import PADDING
from gradparity.studies.peers.answers import CANNOT, Answers, asked
from gradparity.studies.peers.loop_in_pieces import (
    FULL_BATCHES,
    OUTSIDE,
    SEED,
    cast_of,
    changed,
    full_batch,
    pieces,
    run_of,
    steady_cast_of,
)
from gradparity.studies.tasks import Batch
from gradparity.training import Moment, Phase

STEPS = stress.EPOCHS * -(-stress.MICROBATCHES // stress.ACCUMULATION_STEPS)


def answers(fault: Fault | None) -> Answers:
    """Run the checks of pytest-torch on the reference with ``fault``, or without."""
    if fault and changed(fault) <= OUTSIDE:
        return CANNOT
    names = pieces(fault)
    return asked(
        {
            check.__name__: partial(check, names)
            for check in (accumulation, mixed_precision, resume, coverage, all_receive_gradients)
        }
    )


def setup_of(names: dict[str, Any], make: Callable[[dict[str, Any]], stress.Cast]) -> Any:
    """Return the setup that the checks train with."""
    cast = make(names)
    setup = TrainingSetup(cast.model, cast.optimizer, cast.scheduler, cast.scaler)
    setup.cast, setup.run = cast, run_of(names, cast)
    return setup


def steps_of(names: dict[str, Any], setup: Any, window: list[Batch]) -> Iterator[Moment]:
    """Yield the moments of the steps that the loop makes from the microbatches ``window``."""
    for one in names["windows"](window, len(window), setup.cast.plan.count):
        yield from names["train_step"](setup.run, one)


def accumulation(names: dict[str, Any]) -> None:
    """Compare a step on the full batch with one on its microbatches."""
    parts: list[Batch] = []

    def split(batch: Batch, n: int) -> list[Batch]:
        parts[:] = [Batch(*tensors) for tensors in zip(*(tensor.chunk(n) for tensor in batch), strict=True)]
        return parts

    def make_step(k: int) -> Callable[[Any, Batch], None]:
        going: list[Iterator[Moment]] = []

        def step(setup: Any, batch: Batch) -> None:
            index = setup.step_index % k
            if index == 0:
                going[:] = [steps_of(names, setup, [batch] if k == 1 else parts)]
            for moment in going[0]:
                if index < k - 1 and moment.phase == Phase.ACCUMULATED:
                    break

        return step

    pytest_torch.assert_accumulation_equivalent(
        partial(setup_of, names, steady_cast_of),
        [full_batch(stress.build("fp32"), chosen) for chosen in FULL_BATCHES],
        make_step,
        accumulation_steps=3,
        cycles=len(FULL_BATCHES),
        split=split,
        seed=SEED,
    )


def mixed_precision(names: dict[str, Any]) -> None:
    """Check the whole scenario in fp16, with its gradient norms and learning rates, which the user knows."""

    def step(setup: Any, window: list[Batch]) -> float:
        return sum(float(m.loss) for m in steps_of(names, setup, window) if m.loss is not None)

    batches, k = stress.microbatches(stress.MICROBATCHES, seed=0), stress.ACCUMULATION_STEPS
    epoch = [batches[start : start + k] for start in range(0, len(batches), k)]
    run = pytest_torch.assert_mixed_precision_training(
        partial(setup_of, names, cast_of), lambda index: epoch[index % len(epoch)], step, steps=STEPS, seed=SEED
    )
    run.assert_healthy(max_grad_norm=stress.MAX_NORM * (1 + 1e-4), max_skipped=2)
    made = [sum(not r.skipped for r in run.records[:index]) for index in range(STEPS)]
    schedule = stress.build("fp32").scheduler
    assert isinstance(schedule, LambdaLR)
    run.assert_lr([schedule.base_lrs[0] * schedule.lr_lambdas[0](steps) for steps in made])


def resume(names: dict[str, Any]) -> None:
    """Compare two epochs without a stop with one epoch and a second, resumed in a new setup from its checkpoint."""

    def step(setup: Any, batches: list[Batch]) -> float:
        cast = setup.cast
        (loss,) = names["train"](
            setup.run,
            batches,
            cast.plan.held_out,
            epochs=range(1),
            accumulation_steps=cast.plan.accumulation_steps,
            count=cast.plan.count,
            checkpoint=cast.plan.checkpoint,
        )
        return float(loss)

    def save(setup: Any, path: Path) -> None:
        with path.open("wb") as file:
            names["save"](setup.run, file)

    def load(setup: Any, path: Path) -> None:
        with path.open("rb") as file:
            names["resume"](setup.run, file)

    pytest_torch.assert_resume_equivalent(
        partial(setup_of, names, cast_of),
        lambda _: stress.microbatches(stress.MICROBATCHES, seed=0),
        step,
        steps=stress.EPOCHS,
        save=save,
        load=load,
        seed=SEED,
    )


def coverage(names: dict[str, Any]) -> None:
    """Check that each parameter is in one group of the optimizer."""
    torch.manual_seed(SEED)
    cast = cast_of(names)
    pytest_torch.assert_optimizer_coverage(cast.model, cast.optimizer)


def all_receive_gradients(names: dict[str, Any]) -> None:
    """Check that each parameter gets a gradient from a microbatch that takes the branch."""
    torch.manual_seed(SEED)
    batch = stress.microbatches(2, seed=0)[1]

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits.flatten(0, -2), batch.targets.flatten(), ignore_index=PADDING, reduction="sum")

    pytest_torch.assert_all_params_receive_grad(cast_of(names).model, batch.inputs, loss)
