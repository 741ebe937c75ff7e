"""The phases of an optimizer step, in their order: the points at which two trainings are compared."""

from dataclasses import dataclass
from enum import IntEnum

from torch import Tensor


class Phase(IntEnum):
    """The points of an optimizer step at which it stops, in order."""

    FORWARD = 0
    ACCUMULATED = 1
    UNSCALED = 2
    CLIPPED = 3
    STEPPED = 4


@dataclass(frozen=True)
class Moment:
    """The point in an optimizer step at which a run has stopped."""

    phase: Phase
    microbatch: int | None = None
    """Its index in the window, or ``None`` after the last one, where a phase belongs to the whole window."""
    loss: Tensor | None = None
    """At ``FORWARD``: the microbatch's share of the window's mean loss, a scalar without graph."""
