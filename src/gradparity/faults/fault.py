"""The definition of a fault: a change of a few lines to the reference, which makes it wrong in one way only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase


class FaultKind(StrEnum):
    """The effect of a fault on a training."""

    BUG = "bug"
    """The updates differ from the intended ones, and nothing raises."""
    RAISES = "raises"
    """PyTorch stops the loop with an exception."""
    ROUNDING = "rounding"
    """The same updates except for rounding, or for dropout masks: not a bug, but not the same bits."""


class Divergence(NamedTuple):
    """The first part of a run's state that differs from the reference, and the place where it does."""

    place: Place
    part: Part

    def __str__(self) -> str:
        return f"{self.place}: {self.part}"


class Stop(NamedTuple):
    """An exception that ends a loop in a step, before anything in its state differs."""

    step: int
    exception: str
    """The name of its type."""

    @property
    def place(self) -> Place:
        """Return the last place of the step."""
        return Place(self.step, None, Phase.STEPPED)

    def __str__(self) -> str:
        return f"step {self.step}, {self.exception}"


Shown: TypeAlias = Divergence | Stop
"""The first sign of a fault."""


@dataclass(frozen=True)
class Change:
    """A change of a few lines to the reference, right or wrong."""

    name: str
    changes: Mapping[Callable[..., Any], str]
    """For each function or class of the reference to change: a patch.

    Lines marked ``-`` are replaced by lines marked ``+``. Lines marked by a space stay, and show the place. The lines
    marked ``-`` or by a space are in the source without its comments, in one piece, exactly once. A line ``@@``
    separates two such places.
    """


@dataclass(frozen=True)
class Fault(Change):
    """A wrong loop, described by its difference from the reference."""

    symptom: str
    """The effect that a user would notice, if any."""
    needs: str
    """The condition under which it shows."""
    first: Shown | None
    """The first sign of it under the stress scenario; the tests compare it with measurements.

    For a fault that rounding can hide, this is at the first place where it can show. ``None`` if it is not known.
    """
    sources: tuple[str, ...] = ()
    """Reports of it: ``owner/repository#number`` on GitHub, or the file that explains it."""
    kind: FaultKind = FaultKind.BUG
    hidden_by_rounding: bool = False
    """True if it shows in last bits only, one number at a time.

    Then the place where it first shows depends on the processor, and in any one precision it may not show at all.
    """

    def may_show(self, at: Shown | Place | None) -> bool:
        """Return whether it can first show so, or in any part of the state at a place; ``None`` is nowhere."""
        if at is not None and (at == self.first or (isinstance(self.first, Divergence) and at == self.first.place)):
            return True
        return self.hidden_by_rounding and not_before(at, self.first)


def not_before(at: Shown | Place | None, first: Shown | None) -> bool:
    """Return whether ``at`` is at the place of ``first`` or later; ``None``, nowhere, is after all places."""
    here, there = _place(at), _place(first)
    return here is None or (there is not None and here >= there)


def _place(at: Shown | Place | None) -> Place | None:
    return at if at is None or isinstance(at, Place) else at.place
