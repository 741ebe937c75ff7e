"""What one check of TrainParity takes, on the small transformer that lockstep and recording are timed on."""

import time
from typing import Any

import torch
import trainparity
from trainparity.api import AccumulationExecutionPlan, LossAccounting, TrainingState

from gradparity.studies.benchmark.subjects import config, small_transformer, subject
from gradparity.studies.peers.with_trainparity import TOLERANCE, untie
from gradparity.studies.tasks import Batch, count

STEPS = 3
"""It makes one step each in three processes of their own: twice on the full batch, once on its microbatches."""


def seconds() -> float:
    """Seconds of one check.

    Raises:
        AssertionError: if it finds something, since what then was timed would be another thing.
    """
    began = time.perf_counter()
    plan = AccumulationExecutionPlan(2)
    result = trainparity.check_accumulation(f"{__name__}:Case", candidate=plan, comparison=TOLERANCE)
    took = time.perf_counter() - began
    assert result.outcome is trainparity.Outcome.PASS, result.message
    return took


class Case:
    """The transformer, without dropout, which would draw other masks for a full batch."""

    equivalence = "the same sequences; cross-entropy averaged over all tokens"

    def build(self, seed: int, device: str) -> Any:
        """What takes part."""
        torch.set_num_threads(1)
        (lane,), window = subject(small_transformer(), ("backward",), config())
        self.run, self.sequences = lane.run, window.microbatches[0]
        self.run.model.eval()
        untie(self.run.model)
        return TrainingState(self.run.model, self.run.optimizer, self.run.scheduler)

    def batch(self, device: str) -> tuple[torch.Tensor, ...]:
        """Inputs and targets."""
        return tuple(self.sequences)

    def loss(self, state: Any, batch: tuple[torch.Tensor, ...]) -> Any:
        """Its mean, and the sum and the number that it is made of."""
        total, tokens = self.run.loss(state.model, Batch(*batch)), count(Batch(*batch))
        return LossAccounting(total / tokens, total, tokens)
