"""The definition of a fault: a change of a few lines to the reference, which makes it wrong in one way only."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gradparity.training import Phase


class Kind(StrEnum):
    """The effect of a fault on a training."""

    BUG = "bug"
    """The updates differ from the intended ones, and nothing raises."""
    RAISES = "raises"
    """PyTorch stops the loop with an exception."""
    ROUNDING = "rounding"
    """The same updates except for rounding, or for dropout masks: not a bug, but not the same bits."""


@dataclass(frozen=True)
class Fault:
    """A wrong loop, described by its difference from the reference."""

    name: str
    symptom: str
    """The effect that a user would notice, if any."""
    needs: str
    """The condition under which it shows."""
    first: str
    """The place where it first shows under the stress scenario; the tests compare it with measurements.

    For a fault that rounding can hide, this is the first place where it can show.
    """
    changes: Mapping[Callable[..., Any], str]
    """For each function or class of the reference to change: a patch that makes it wrong.

    Lines marked ``-`` are replaced by lines marked ``+``. Lines marked by a space stay, and show the place. The lines
    marked ``-`` or by a space are in the source without its comments, in one piece, exactly once. A line ``@@``
    separates two such places.
    """
    sources: tuple[str, ...] = ()
    """Reports of it: ``owner/repository#number`` on GitHub, or the file that explains it."""
    kind: Kind = Kind.BUG
    hidden_by_rounding: bool = False
    """True if it shows in last bits only, one number at a time.

    Then the place where it first shows depends on the processor, and in any one precision it may not show at all.
    """

    def may_show(self, place: str) -> bool:
        """Return whether it can first show at ``place``, or anywhere in the phase that ``place`` begins with."""
        return self.first.startswith(place) or (self.hidden_by_rounding and order(place) >= order(self.first))


def order(place: str) -> tuple[float, float, float]:
    """Return a sort key for ``place``, its position in a training; the end, and nowhere, come last.

    >>> order("step 1, microbatch 2, forward: loss") < order("step 1, microbatch 2, accumulated: gradients")
    True
    >>> order("step 1, microbatch 2, forward: loss") < order("step 1, clipped") < order("step 2, unscaled")
    True
    >>> order("step 2, stepped") < order("nowhere")
    True
    """
    found = re.match(r"step (\d+)(?:, microbatch (\d+))?, (\w+)", place)
    if not found:
        return math.inf, math.inf, math.inf
    step, microbatch, phase = found.groups()
    names = [each.name.lower() for each in Phase]
    return (
        int(step),
        math.inf if microbatch is None else int(microbatch),
        names.index(phase) if phase in names else math.inf,
    )
