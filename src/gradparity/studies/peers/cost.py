"""The time of one TrainParity check, on the small transformer that lockstep and recording are timed on."""

import time
from typing import Any

import torch
import trainparity
from trainparity.api import AccumulationExecutionPlan, LossAccounting, TrainingState

from gradparity.studies.benchmark.subjects import config, small_transformer, subject
from gradparity.studies.peers.with_trainparity import TOLERANCE, untie
from gradparity.studies.tasks import Batch, count

STEPS = 3
"""The steps of one check, each in a separate process: two on the full batch, one on its microbatches."""


def seconds() -> float:
    """Return the seconds that one check takes.

    Raises:
        AssertionError: if the check does not pass, since then something different was timed.
    """
    began = time.perf_counter()
    plan = AccumulationExecutionPlan(2)
    result = trainparity.check_accumulation(f"{__name__}:Case", candidate=plan, comparison=TOLERANCE)
    took = time.perf_counter() - began
    assert result.outcome is trainparity.Outcome.PASS, result.message
    return took


class Case:
    """The transformer without dropout, which would draw different masks for a full batch."""

    equivalence = "the same sequences; cross-entropy averaged over all tokens"

    def build(self, seed: int, device: str) -> Any:
        """Build the model, the optimizer and the scheduler."""
        torch.set_num_threads(1)
        (lane,), window = subject(small_transformer(), ("backward",), config())
        self.run, self.sequences = lane.run, window.microbatches[0]
        self.run.model.eval()
        untie(self.run.model)
        return TrainingState(self.run.model, self.run.optimizer, self.run.scheduler)

    def batch(self, device: str) -> tuple[torch.Tensor, ...]:
        """Return inputs and targets."""
        return tuple(self.sequences)

    def loss(self, state: Any, batch: tuple[torch.Tensor, ...]) -> Any:
        """Return the mean loss, with the summed loss and the number of tokens."""
        total, tokens = self.run.loss(state.model, Batch(*batch)), count(Batch(*batch))
        return LossAccounting(total / tokens, total, tokens)
