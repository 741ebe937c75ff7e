"""A few numbers to follow a training by, for each optimizer step, read from a run while it waits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradparity.training import Moment, Phase, Run


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step in numbers."""

    loss: float
    """Mean over the window."""
    norm: float
    """L2 norm of all gradients, unscaled, before clipping."""
    clipped_norm: float
    scale: float
    """The loss scale of this step."""
    lr: float
    """Learning rate of the first group, in this step."""
    skipped: bool
    """True if a gradient overflowed and the scaler skipped the step."""


class StepMetricsReader:
    """A reader of the moments of one run, in order; it returns readings at the end of each step."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._loss = 0.0
        self._norm: dict[Phase, float] = {}
        self._scale = self._lr = 0.0

    def take(self, moment: Moment | None) -> StepMetrics | None:
        """Return the readings of the step that ``moment`` ends; ``None`` before the end, and if phases are missing."""
        if moment is None:
            return None
        if moment.loss is not None:
            self._loss += float(moment.loss)
        if moment.phase in (Phase.UNSCALED, Phase.CLIPPED):
            self._norm[moment.phase] = total_norm(self.run.parameters)
            self._scale, self._lr = self.run.scaler.get_scale(), self.run.optimizer.param_groups[0]["lr"]
        if moment.phase != Phase.STEPPED or len(self._norm) < 2:
            return None
        norm, clipped_norm = self._norm[Phase.UNSCALED], self._norm[Phase.CLIPPED]
        skipped = self.run.scaler.get_scale() < self._scale
        readings = StepMetrics(self._loss, norm, clipped_norm, self._scale, self._lr, skipped)
        self._loss, self._norm = 0.0, {}
        return readings


def read_at_once(scalars: Sequence[Tensor]) -> list[Any]:
    """Return the values of ``scalars`` of one dtype, with one wait for the device."""
    numbers: list[Any] = torch.stack([s.to(scalars[0].device) for s in scalars]).tolist() if scalars else []
    return numbers


def total_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Return the L2 norm of all gradients together, in fp64 so that their squares do not overflow."""
    squares = [p.grad.double().square().sum() for p in parameters if p.grad is not None]
    return math.sqrt(sum(read_at_once(squares)))
