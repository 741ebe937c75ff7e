"""A fault: a change of a few lines to the reference, which makes a loop that is wrong in one way only."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gradparity.training import Phase


class Kind(StrEnum):
    """What a fault does to a training."""

    BUG = "bug"
    """Other updates than were meant, and nothing raises."""
    RAISES = "raises"
    """PyTorch stops the loop with an exception."""
    ROUNDING = "rounding"
    """The same updates but for rounding, or for the masks of dropout: no bug, and not the same bits."""


@dataclass(frozen=True)
class Fault:
    """A wrong loop, told by how it differs from the reference."""

    name: str
    symptom: str
    """What somebody who trains with it would notice, if anything."""
    needs: str
    """What must be there for it to show."""
    first: str
    """Where it first shows under the stress scenario; the tests hold it against what is measured.

    For a fault that rounding can hide, the first place at which it can show.
    """
    changes: Mapping[Callable[..., Any], str]
    """By function or class of the reference: a patch that makes it wrong.

    Lines marked ``-`` give way to lines marked ``+``; those marked by a space stay, and say where. All of them stand
    in the source without its comments, in one piece, exactly once. A line ``@@`` stands between two such places.
    """
    sources: tuple[str, ...] = ()
    """Where it happened: ``owner/repository#number`` on GitHub, or the file that explains it."""
    kind: Kind = Kind.BUG
    hidden_by_rounding: bool = False
    """Whether it shows in last bits alone, one number at a time.

    Then it depends on the processor where it first shows, and in a single precision it may show nowhere.
    """

    def may_show(self, place: str) -> bool:
        """Return whether it can first show at ``place``, or anywhere in the phase that ``place`` begins with."""
        return self.first.startswith(place) or (self.hidden_by_rounding and order(place) >= order(self.first))


def order(place: str) -> tuple[float, float, float]:
    """Return where ``place``, in words, stands in a training; its end, and nowhere, come last.

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
