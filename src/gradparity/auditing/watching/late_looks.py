"""Looks at tensors on a GPU whose digests it still computes: the loop goes on, and they are read later."""

from collections.abc import Sequence
from dataclasses import replace
from typing import overload

from gradparity.auditing.events import Backward, GradientLook, LoopEvent, StepMade
from gradparity.trace.fingerprint import Fingerprint
from gradparity.trace.late_fingerprints import LateFingerprints
from gradparity.trace.late_hash import LateHash


class LateLook(Sequence[Fingerprint | None]):
    """A look at gradients: its length is known at once, and whoever reads an item waits for all of them.

    Args:
        there: whether each parameter has a gradient.
        late: the fingerprints of those that are there.
    """

    def __init__(self, there: Sequence[bool], late: LateFingerprints) -> None:
        self._there, self._late = there, late
        self._read: tuple[Fingerprint | None, ...] | None = None

    def ready(self) -> bool:
        """Return whether nothing has to be waited for."""
        return self._read is not None or self._late.ready()

    def read(self) -> tuple[Fingerprint | None, ...]:
        """Return the look, after a wait for it."""
        if self._read is None:
            found = iter(self._late.get())
            self._read = tuple(next(found) if there else None for there in self._there)
        return self._read

    def __len__(self) -> int:
        return len(self._there)

    @overload
    def __getitem__(self, index: int) -> Fingerprint | None: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Fingerprint | None, ...]: ...
    def __getitem__(self, index: int | slice) -> Fingerprint | tuple[Fingerprint | None, ...] | None:
        return self.read()[index]


def is_ready(event: LoopEvent) -> bool:
    """Return whether nothing in an event has to be waited for."""
    late = (event.before, event.after, *_hashes(event).values())
    return all(value.ready() for value in late if isinstance(value, (LateLook, LateHash)))


def with_all_read(event: LoopEvent) -> LoopEvent:
    """Return an event with everything in it that was late, after a wait for it."""
    late = {name: str(value) for name, value in _hashes(event).items() if isinstance(value, LateHash)}
    if late:
        event = replace(event, what=replace(event.what, **late))  # type: ignore[arg-type]  # its own fields
    if isinstance(event.before, LateLook) or isinstance(event.after, LateLook):
        return replace(event, before=_look(event.before), after=_look(event.after))
    return event


def _look(gradients: GradientLook) -> GradientLook:
    return gradients.read() if isinstance(gradients, LateLook) else gradients


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
