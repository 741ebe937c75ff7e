"""A fault: a change of a few lines to the reference, which makes a loop that is wrong in one way only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


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
    """Where it first shows under the stress scenario; the tests hold it against what is measured."""
    changes: Mapping[Callable[..., Any], str]
    """By function or class of the reference: a patch that makes it wrong.

    Lines marked ``-`` give way to lines marked ``+``; those marked by a space stay, and say where. All of them stand
    in the source without its comments, in one piece, exactly once. A line ``@@`` stands between two such places.
    """
    sources: tuple[str, ...] = ()
    """Where it happened: ``owner/repository#number`` on GitHub, or the file that explains it."""
    kind: Kind = Kind.BUG
