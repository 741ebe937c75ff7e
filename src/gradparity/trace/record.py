"""What one line of a trace says: which event, in which step, and what there was to see."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gradparity.parity.state import Part
from gradparity.trace.fingerprint import Printed
from gradparity.training import Phase


class Event(StrEnum):
    """What happened in the loop. Those of :data:`PHASE` come with a look at its state, the others only with a name."""

    ZERO_GRAD = "zero_grad"
    FORWARD = "forward"
    """A loss is about to be differentiated."""
    ACCUMULATED = "accumulated"
    """Its gradients have reached ``p.grad``."""
    UNSCALED = "unscaled"
    CLIP = "clip"
    SCALER_STEP = "scaler_step"
    """``scaler.step`` was called, with a scaler that is switched on."""
    READY = "ready"
    """The gradients and hyperparameters as the optimizer is about to read them, or would be if it were not skipped."""
    STEP = "step"
    SKIP = "skip"
    """``scaler.step`` returned without having called ``optimizer.step``: a gradient was not finite."""
    UPDATE = "update"
    """Of the loss scale."""
    SCHEDULE = "schedule"
    END = "end"
    """The recording ends."""


PHASE: Mapping[Event, Phase] = {
    Event.FORWARD: Phase.FORWARD,
    Event.ACCUMULATED: Phase.ACCUMULATED,
    Event.UNSCALED: Phase.UNSCALED,
    Event.READY: Phase.CLIPPED,
    Event.STEP: Phase.STEPPED,
    Event.SKIP: Phase.STEPPED,
    Event.END: Phase.STEPPED,
}


@dataclass(frozen=True)
class Record:
    """One event of a loop."""

    event: Event
    step: int
    """How many optimizer steps, made or skipped, came before."""
    microbatch: int | None = None
    """How many gradients of this step came before; ``None`` for events of the whole window."""
    parts: Mapping[Part, Mapping[str, Printed]] = field(default_factory=dict)
    tensors: str | None = None
    """The file with the tensors themselves, relative to the trace, where they were kept."""


def unchanged(name: str) -> str:
    """The same."""
    return name


@dataclass(frozen=True)
class Trace:
    """A loop as it was watched."""

    about: Mapping[str, str | int]
    """The machine and versions it ran with: bits depend on them."""
    records: list[Record]
    folder: str | None = None
    complete: bool = True
    """Whether the recording came to its end."""
    notes: tuple[str, ...] = ()
    """What the recording lacks, a sentence each."""
    rename: Callable[[str], str] = unchanged
    """From the names in ``folder`` to those in ``records``."""
