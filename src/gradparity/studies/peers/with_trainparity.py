"""The checks of TrainParity (https://github.com/intelland/TrainParity) on a loop, as its documentation teaches.

The accumulation check runs TrainParity's own step on the user's model, optimizer and loss. TrainParity lists the faults
that this step can be given. The resume check runs any command that trains and writes a checkpoint.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
import trainparity
from torch import nn
from trainparity import accumulation, process_resume
from trainparity.api import AccumulationExecutionPlan, LossAccounting, TrainingState

from gradparity.faults import FAULTS, Fault, stress
from gradparity.studies.peers.answers import CANNOT, Answers, asked
from gradparity.studies.peers.children import instead_of_subprocess
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
from gradparity.studies.tasks import Batch, count

FAULT = "GRADPARITY_FAULT"
"""The environment variable that passes the loop's fault to TrainParity's processes."""

TAKEN = frozenset({"build", "decay_groups", "run_of", "StressModel", "summed_loss"})
"""The functions that the accumulation check takes from the user."""

PLAN = AccumulationExecutionPlan(3, clip_grad_norm=stress.MAX_NORM)
PLANS = {
    "mean-of-microbatch-means": {"use_explicit_loss_accounting": False},
    "mean-loss-not-divided-by-k": {"use_explicit_loss_accounting": False, "scale_accumulated_loss": False},
    "steps-every-microbatch": {"optimizer_step_per_microbatch": True},
    "schedule-advanced-every-microbatch": {"scheduler_step_per_microbatch": True},
    "zero-grad-before-step": {"zero_grad_before_gradient_observation": True},
    "clip-every-microbatch": {"clip_per_microbatch": True},
    "optimizer-stepped-past-the-scaler": {"amp_step_before_unscale": True},
    "last-microbatch-of-each-window-lost": {"omit_final_microbatch": True},
}
"""The faults that TrainParity's own step can be given, with its options for each."""

TOLERANCE = trainparity.ToleranceComparison(rtol=1e-4, atol=1e-6)
"""Tolerance for a full batch against its microbatches, which round differently; the default of pytest-torch."""


def answers(fault: Fault | None) -> Answers:
    """Run the checks of TrainParity on the reference with ``fault``, or without."""
    if fault and changed(fault) <= OUTSIDE:
        return CANNOT
    checks = {"resume": check_resume}
    plan = PLAN
    if fault is None or changed(fault) <= TAKEN:
        checks["accumulation"] = partial(check_accumulation, plan)
    elif fault.name in PLANS:
        plan = AccumulationExecutionPlan(3, clip_grad_norm=stress.MAX_NORM, **PLANS[fault.name])
        checks["accumulation"] = partial(check_accumulation, plan)
    os.environ[FAULT] = fault.name if fault else ""
    try:
        with instead_of_subprocess(accumulation, process_resume):
            return asked(checks)
    finally:
        del os.environ[FAULT]


def check_accumulation(plan: Any) -> None:
    """Compare a step on the full batch with one on its microbatches."""
    case = f"{__name__}:AccumulationCase"
    told(trainparity.check_accumulation(case, candidate=plan, comparison=TOLERANCE))


def check_resume() -> None:
    """Compare two epochs without a stop with one epoch and a second, resumed in a new process from its checkpoint."""
    told(trainparity.check_resume(f"{__name__}:ResumeCase"))


def told(result: Any) -> None:
    """Raise the message of a result, unless it passed.

    Raises:
        AssertionError: if the outcome is not ``PASS``.
    """
    if result.outcome is not trainparity.Outcome.PASS:
        raise AssertionError(f"{result.outcome.value}: {result.message}")


def named() -> dict[str, Any]:
    """Return the pieces of the loop under test, whose fault the environment names."""
    return pieces(FAULTS.get(os.environ[FAULT]))


class AccumulationCase:
    """One full batch and the training on it, as the accumulation check takes them."""

    equivalence = "the same sequences; cross-entropy averaged over all tokens"

    def __init__(self) -> None:
        self.names = named()

    def build(self, seed: int, device: str) -> Any:
        """Build the model, the optimizer, the scheduler and the scaler."""
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        self.cast = steady_cast_of(self.names)
        untie(self.cast.model)
        return TrainingState(self.cast.model, self.cast.optimizer, self.cast.scheduler, scaler=self.cast.scaler)

    def batch(self, device: str) -> tuple[torch.Tensor, ...]:
        """Return inputs and targets."""
        return tuple(full_batch(self.cast, FULL_BATCHES[0]))

    def loss(self, state: Any, batch: tuple[torch.Tensor, ...]) -> Any:
        """Return the mean loss, with the summed loss and the number of tokens."""
        total, tokens = self.cast.loss(state.model, Batch(*batch)), count(Batch(*batch))
        return LossAccounting(total / tokens, total, tokens)


def untie(model: nn.Module) -> None:
    """Register a tied weight under one name only, since TrainParity refuses two. The forward uses it as before."""
    named = set[int]()
    for module in model.modules():
        for name, parameter in [*module.named_parameters(recurse=False)]:
            if id(parameter) in named:
                del module._parameters[name]
                module.__dict__[name] = parameter
            named.add(id(parameter))


class ResumeCase:
    """The reference loop as a command."""

    name = "stress"
    split_step = 1
    total_step = stress.EPOCHS

    def command(self, plan: Any) -> list[str]:
        """Return the command that trains to the plan's last epoch, from the plan's checkpoint if it has one."""
        command = [sys.executable, "-m", __name__, str(plan.run_dir), str(plan.end_step)]
        return [*command, str(plan.resume_from)] if plan.resume_from else command

    def checkpoint_path(self, run_dir: Path) -> Path:
        """Return the path of the checkpoint that the command writes."""
        return run_dir / "checkpoint.pt"

    def observe_checkpoint(self, path: Path) -> Mapping[str, object]:
        """Return the whole content of the checkpoint."""
        state: dict[str, object] = torch.load(path, weights_only=True)
        return state


def train(names: dict[str, Any], folder: Path, epochs: int, checkpoint: Path | None) -> None:
    """Train to the end of ``epochs``, from the beginning or from a checkpoint."""
    torch.set_num_threads(1)
    saved = BytesIO(checkpoint.read_bytes()) if checkpoint else None  # read first: this run overwrites the file
    with (folder / "checkpoint.pt").open("w+b") as file:
        torch.manual_seed(SEED)
        cast = cast_of(names)
        run = run_of(names, cast)
        if saved is not None:
            names["resume"](run, saved)
        done = ResumeCase.split_step if saved else 0
        names["train"](
            run,
            cast.batches,
            cast.plan.held_out,
            epochs=range(done, epochs),
            accumulation_steps=cast.plan.accumulation_steps,
            count=cast.plan.count,
            checkpoint=file,
        )


def main() -> None:
    """Run the command of :class:`ResumeCase`."""
    parser = ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    train(named(), **vars(given))


if __name__ == "__main__":
    main()
