"""The size of a difference, as one ``torchmetrics.Metric`` that accumulates over tensors and ranks."""

from typing import Any, Final

import torch
from torch import Tensor
from torchmetrics import Metric

from gradparity.parity.bits import ulp_distance
from gradparity.parity.figures import Figures

_AT_ONCE: Final = 131_072
"""Number of elements processed at once: intermediate tensors stay small, mostly in the cache."""


class Difference(Metric):
    """Accumulates :class:`Figures` over pairs of tensors, and over the ranks of a process group.

    Every state is a sum or a maximum, so synced ranks give the result of one process. The median comes from a
    histogram by powers of two, since medians of parts cannot be combined. A figure that divides by the norm of a
    zero tensor is infinite or NaN.

    >>> metric = Difference()
    >>> metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 2**-22]))
    >>> metric.compute().max_ulp, metric.compute().differing
    (1, 1)
    """

    full_state_update = False

    elements: Tensor
    differing: Tensor
    histogram: Tensor
    max_ulp: Tensor
    max_absolute: Tensor
    max_relative: Tensor
    squared_difference: Tensor
    squared_reference: Tensor
    squared_candidate: Tensor
    dot: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("elements", "differing"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("histogram", torch.zeros(64, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("max_ulp", torch.tensor(0), dist_reduce_fx="max")
        for name in ("max_absolute", "max_relative"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="max")
        for name in ("squared_difference", "squared_reference", "squared_candidate", "dot"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, reference: Tensor, candidate: Tensor) -> None:
        """Add one pair of dense floating-point or complex tensors of one dtype and shape, on any device."""
        for r, c in zip(_flat(reference).split(_AT_ONCE), _flat(candidate).split(_AT_ONCE), strict=True):
            self._take_in(r.to(self.device), c.to(self.device))

    def _take_in(self, reference: Tensor, candidate: Tensor) -> None:
        ulp = ulp_distance(reference, candidate)
        changed = ulp[ulp > 0]
        self.elements += ulp.numel()
        self.differing += changed.numel()
        self.histogram += torch.bincount(_floor_log2(changed), minlength=64)
        self.max_ulp = torch.maximum(self.max_ulp, _max(changed))

        r, c = reference.double(), candidate.double()
        finite = r.isfinite() & c.isfinite()
        r, c = r[finite], c[finite]
        absolute = (c - r).abs()
        self.max_absolute = torch.maximum(self.max_absolute, _max(absolute))
        self.max_relative = torch.maximum(self.max_relative, _max(absolute[r != 0] / r[r != 0].abs()))
        self.squared_difference += absolute.dot(absolute)
        self.squared_reference += r.dot(r)
        self.squared_candidate += c.dot(c)
        self.dot += r.dot(c)

    def compute(self) -> Figures:
        """Return the figures over all pairs added so far."""
        reference, candidate = self.squared_reference.sqrt(), self.squared_candidate.sqrt()
        below = self.histogram.cumsum(0)
        median = 2 ** int((2 * below < below[-1]).sum()) if self.differing else 0
        return Figures(
            elements=int(self.elements),
            differing=int(self.differing),
            max_ulp=int(self.max_ulp),
            median_ulp=median,
            max_absolute=float(self.max_absolute),
            max_relative=float(self.max_relative),
            relative_norm=float(self.squared_difference.sqrt() / reference),
            norm_ratio=float(candidate / reference),
            cosine=float(self.dot / (reference * candidate)),
            histogram=tuple(self.histogram.tolist()[: int(self.max_ulp).bit_length()]),
        )


def _flat(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).flatten()


def _floor_log2(counts: Tensor) -> Tensor:
    return torch.frexp(counts.double()).exponent.long() - 1


def _max(values: Tensor) -> Tensor:
    return values.max() if values.numel() else values.new_zeros(())
