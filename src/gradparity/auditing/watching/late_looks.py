"""Looks at tensors on a GPU whose digests it still computes: the loop goes on, and they are read later."""

from dataclasses import replace

from gradparity.auditing.events import Backward, LoopEvent, StepMade
from gradparity.auditing.gradient_looks import Look
from gradparity.trace.late_hash import LateHash


def is_ready(event: LoopEvent) -> bool:
    """Return whether nothing in an event has to be waited for."""
    late = (event.before, event.after, *_hashes(event).values())
    return all(value.ready() for value in late if isinstance(value, (Look, LateHash)))


def with_all_read(event: LoopEvent) -> LoopEvent:
    """Return an event with everything in it that was late, after a wait for it."""
    for look in (event.before, event.after):
        if isinstance(look, Look):
            look.settle()
    late = {name: str(value) for name, value in _hashes(event).items() if isinstance(value, LateHash)}
    return replace(event, what=replace(event.what, **late)) if late else event  # type: ignore[arg-type]  # its own fields


def _hashes(event: LoopEvent) -> dict[str, str | LateHash]:
    """Return the digests of weights and state in an event, by field."""
    match event.what:
        case Backward(weights=weights, loss=loss):
            return {"weights": weights, "loss": loss}
        case StepMade() as made:
            names = ("weights_before", "weights_after", "state_before", "state_after")
            return {name: getattr(made, name) for name in names}
        case _:
            return {}
