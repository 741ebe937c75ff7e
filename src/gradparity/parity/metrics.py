"""The size of a difference, as one ``torchmetrics.Metric`` that accumulates over tensors and ranks."""

from dataclasses import fields
from typing import Any

from torch import Tensor
from torchmetrics import Metric

from gradparity.parity.difference_sums import LARGEST, Sums, sums_of
from gradparity.parity.figures import Figures


class Difference(Metric):
    """Accumulates :class:`Figures` over pairs of tensors, and over the ranks of a process group.

    Every state is a sum or a maximum, so synced ranks give the result of one process. A figure that divides by the norm
    of a zero tensor is infinite or NaN.

    >>> import torch
    >>> metric = Difference()
    >>> metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 2**-22]))
    >>> metric.compute().max_ulp, metric.compute().differing
    (1, 1)
    """

    full_state_update = False

    differing: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, start in vars(Sums()).items():
            self.add_state(name, start, dist_reduce_fx="max" if name in LARGEST else "sum")

    def update(self, reference: Tensor, candidate: Tensor) -> None:
        """Add one pair of dense floating-point or complex tensors of one dtype and shape, on any device."""
        for name, value in vars(self._sums() + sums_of(reference, candidate, self.device)).items():
            setattr(self, name, value)

    def compute(self) -> Figures:
        """Return the figures over all pairs added so far."""
        return self._sums().figures()

    def _sums(self) -> Sums:
        return Sums(**{one.name: getattr(self, one.name) for one in fields(Sums)})
