"""The parts of a picture of one step: lanes, rows, columns and cells, without a drawing."""

from dataclasses import dataclass
from enum import StrEnum

from gradparity.auditing.finding import RuleVerdict
from gradparity.auditing.watching.user_lines import Line


class Row(StrEnum):
    """The kinds of events, in the order in which a step should come to them."""

    EMPTY = "zero_grad"
    FORWARD = "forward: tokens"
    BACKWARD = "backward: weight"
    UNSCALE = "unscale: divisor"
    CLIP = "clip: threshold"
    STEP = "step"
    UPDATE = "update: loss scale"
    SCHEDULE = "schedule: rate"


@dataclass(frozen=True)
class Cell:
    """One event in a lane."""

    row: Row
    slot: int
    words: str
    """The code of the rule that the event breaks, if it breaks one, and the figure of the event, if it has one."""
    line: Line
    code: str = ""
    """The rule that the event breaks; empty if it breaks none."""
    verdict: RuleVerdict | None = None
    collides: bool = False
    """True if an event that breaks a rule collides with this one."""


@dataclass(frozen=True)
class Lane:
    """The events of one optimizer."""

    title: str
    cells: tuple[Cell, ...]
    columns: tuple["Column", ...] = ()
    """Its microbatches, in the lane of the optimizer whose step it is."""

    @property
    def rows(self) -> list[Row]:
        """Return the rows that have an event, in order."""
        used = {cell.row for cell in self.cells}
        return [row for row in Row if row in used]


@dataclass(frozen=True)
class Column:
    """A microbatch, or several that are left out."""

    name: str
    first: int
    """Its first slot."""
    last: int


@dataclass(frozen=True)
class StepPicture:
    """One step, ready to be drawn."""

    title: str
    lanes: tuple[Lane, ...]
    widths: tuple[int, ...]
    """The width of each slot, in characters."""
