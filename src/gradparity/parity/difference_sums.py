"""Sums and maxima over pairs of tensors, from which the size of a difference follows; they need torch alone."""

from dataclasses import dataclass, field, fields
from functools import reduce
from operator import add
from typing import Final

import torch
from torch import Tensor

from gradparity.parity.bits import ulp_distance
from gradparity.parity.figures import Figures

_AT_ONCE: Final = 131_072
"""Number of elements processed at once: intermediate tensors stay small, mostly in the cache."""

LARGEST: Final = ("max_ulp", "max_absolute", "max_relative")
"""The fields of :class:`Sums` that are maxima."""


def _count() -> Tensor:
    return torch.tensor(0)


def _number() -> Tensor:
    return torch.tensor(0.0, dtype=torch.float64)


@dataclass(frozen=True)
class Sums:
    """Sums and maxima over pairs of tensors; those of all pairs follow from those of some and of the others.

    The histogram counts by powers of two, since medians of parts cannot be combined.

    >>> one = sums_of(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0 + 2**-22]))
    >>> one.figures().max_ulp, (one + one).figures().differing
    (1, 2)
    """

    elements: Tensor = field(default_factory=_count)
    differing: Tensor = field(default_factory=_count)
    histogram: Tensor = field(default_factory=lambda: torch.zeros(64, dtype=torch.long))
    max_ulp: Tensor = field(default_factory=_count)
    max_absolute: Tensor = field(default_factory=_number)
    max_relative: Tensor = field(default_factory=_number)
    squared_difference: Tensor = field(default_factory=_number)
    squared_reference: Tensor = field(default_factory=_number)
    squared_candidate: Tensor = field(default_factory=_number)
    dot: Tensor = field(default_factory=_number)

    def __add__(self, other: "Sums") -> "Sums":
        """Return the sums over the pairs of both."""
        return Sums(*(_joined(one.name, getattr(self, one.name), getattr(other, one.name)) for one in fields(Sums)))

    def figures(self) -> Figures:
        """Return the figures over all pairs. One that divides by the norm of a zero tensor is infinite or NaN."""
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


def _joined(name: str, one: Tensor, other: Tensor) -> Tensor:
    return torch.maximum(one, other) if name in LARGEST else one + other


def sums_of(reference: Tensor, candidate: Tensor, device: torch.device | str = "cpu") -> Sums:
    """Return the sums over one pair of dense floating-point or complex tensors of one dtype and shape.

    Args:
        reference: on any device.
        candidate: on any device.
        device: where the sums are computed, piece by piece.
    """
    pieces = zip(_flat(reference).split(_AT_ONCE), _flat(candidate).split(_AT_ONCE), strict=True)
    return reduce(add, (_of_a_piece(r.to(device), c.to(device)) for r, c in pieces))  # of no elements: one piece


def _of_a_piece(reference: Tensor, candidate: Tensor) -> Sums:
    ulp = ulp_distance(reference, candidate)
    changed = ulp[ulp > 0]
    r, c = reference.double(), candidate.double()
    finite = r.isfinite() & c.isfinite()
    r, c = r[finite], c[finite]
    absolute = (c - r).abs()
    return Sums(
        elements=changed.new_tensor(ulp.numel()),
        differing=changed.new_tensor(changed.numel()),
        histogram=torch.bincount(_floor_log2(changed), minlength=64),
        max_ulp=_max(changed),
        max_absolute=_max(absolute),
        max_relative=_max(absolute[r != 0] / r[r != 0].abs()),
        squared_difference=absolute.dot(absolute),
        squared_reference=r.dot(r),
        squared_candidate=c.dot(c),
        dot=r.dot(c),
    )


def _flat(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).flatten()


def _floor_log2(counts: Tensor) -> Tensor:
    return torch.frexp(counts.double()).exponent.long() - 1


def _max(values: Tensor) -> Tensor:
    return values.max() if values.numel() else values.new_zeros(())
