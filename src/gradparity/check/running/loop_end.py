"""The end of a loop, as a value: decisions depend on its kind and the type of an exception, never on a message."""

from dataclasses import dataclass, field
from enum import StrEnum

from gradparity.errors import first_line
from gradparity.processes.user_frames import Frame, frames_of_exception, innermost


class EndKind(StrEnum):
    """The ways in which an observed loop can end."""

    FINISHED = "finished"
    """It returned."""
    RAISED = "raised"
    EXITED = "exited"
    """It raised ``SystemExit``."""
    ENDLESS = "endless"
    """It was stopped, because it went on for far longer than the reference."""
    STOPPED = "stopped"
    """It was stopped, because enough of it was observed."""


@dataclass(frozen=True)
class LoopEnd:
    """The end of a loop. Two ends are equal if their kind, exception and message are."""

    kind: EndKind = EndKind.FINISHED
    exception: str = ""
    """The name of the type of the exception, if it raised one."""
    message: str = ""
    """The first line of the exception's message."""
    frame: Frame | None = field(default=None, compare=False)
    """The user's line that raised it, if it is known."""

    @property
    def finished(self) -> bool:
        """Return whether the loop returned."""
        return self.kind == EndKind.FINISHED

    def __str__(self) -> str:
        """Return the reason why the loop did not finish; empty if it did."""
        match self.kind:
            case EndKind.FINISHED:
                return ""
            case EndKind.ENDLESS:
                return "it was stopped after five times as many forwards, backwards and steps as the reference makes"
            case EndKind.STOPPED:
                return "it was stopped, because enough of it was observed"
        return f"{self.exception}: {self.message}" if self.message else self.exception


def end_by(error: BaseException) -> LoopEnd:
    """Return the end of a loop that raised ``error``."""
    kind = EndKind.EXITED if isinstance(error, SystemExit) else EndKind.RAISED
    frame = innermost(frames_of_exception(error))
    return LoopEnd(kind, type(error).__name__, first_line(error), frame)
