"""Observation of a loop under the stress scenario: a trace in memory, and the part of it that is judged."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch

from gradparity.faults.fault import Fault
from gradparity.faults.patching import reference_with
from gradparity.faults.stress import Cast
from gradparity.parity.compare import walk
from gradparity.parity.place import Place
from gradparity.parity.random_stream import RandomStream, seed_of
from gradparity.parity.state import Part
from gradparity.processes import user_frames
from gradparity.trace.autograd_graph import Reach
from gradparity.trace.events import PHASE, Record, Trace
from gradparity.trace.fingerprint import Fingerprint, Printed
from gradparity.trace.recorder import Recorder
from gradparity.trace.snapshot import Seen, Watched

Loop: TypeAlias = Callable[..., Any]

MOST_RECORDS = 500
"""About five times the records of the reference; a loop that makes more will not stop by itself."""


ENDLESS = "it went on and on"


class Look(NamedTuple):
    """The part of a record that is judged. Two loops are the same training if all their looks are equal, in order."""

    place: Place
    content: frozenset[tuple[Part, str, object]]


GoOn: TypeAlias = Callable[[Sequence[Record], Sequence[Look]], bool]
"""Called after each look; returns whether to observe more of the loop."""


@dataclass(frozen=True)
class Observed:
    """A loop as it was observed."""

    trace: Trace
    looks: list[Look]
    error: str | None = None
    """The exception that ended it, on one line; ``None`` if it returned."""
    where: str = ""
    """The line of the loop that raised it."""
    elsewhere: bool = False
    """True if it computed gradients, but never of what it was given to train."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Observed) and (self.looks, self.error) == (other.looks, other.error)

    __hash__ = None  # type: ignore[assignment]  # compared, never a key


class Keeper(Protocol):
    """A receiver of all records with the live values behind them, such as a writer of traces."""

    def write(self, record: Record, seen: Seen) -> None:
        """Take one record."""


class _Enough(BaseException):  # no error; and no `except Exception` in a loop may catch it
    """Stops a loop that needs no more observation. If the loop goes on anyway, nothing more is recorded."""


def observe(
    loop: Loop,
    build: Callable[[str], Cast],
    precision: str,
    go_on: GoOn = lambda records, looks: True,
    writer: Keeper | None = None,
    seed: int = 0,
    trim: Callable[[Record], Record] = lambda record: record,
) -> Observed:
    """Run ``loop`` on what ``build`` makes, and return what was observed.

    Args:
        loop: called with everything in the cast, by name.
        build: makes the cast for a precision.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
        go_on: called after each look; if it returns false, the loop is given up.
        writer: receives every record as well.
        seed: of the weights and masks.
        trim: removes what is of no interest from a record.
    """
    records: list[Record] = []
    looks: list[Look] = []
    error = None
    where = ""

    def write(record: Record, seen: Seen) -> None:
        nonlocal error
        if error is not None:
            raise _Enough
        record = trim(record)
        records.append(record)
        if writer is not None:
            writer.write(record, seen)
        if record.event in PHASE:
            looks.append(judged(record))
            if not go_on(records, looks):
                error = "given up"
        if len(records) > MOST_RECORDS:
            error = ENDLESS
        if error is not None:
            raise _Enough

    torch.set_num_threads(1)
    with RandomStream(seed_of(seed, "stress")).active(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cast = build(precision)
        recorder = Recorder(Watched(cast.model, cast.optimizer, cast.scaler, cast.scheduler), write)
        try:
            with recorder.watching():
                loop(**vars(cast))
        except (_Enough, KeyboardInterrupt):
            if error is None:
                raise
        except BaseException as raised:
            error, where = error or in_a_line(raised), user_frames.of_exception(raised)
    if recorder.fault is not None:  # an error of this package or of the disk, not of the loop
        raise recorder.fault
    elsewhere = recorder.lacks.backwards.keys() == {Reach.NO}
    return Observed(Trace({}, records, complete=error is None), looks, error, where, elsewhere)


def observe_with(faults: Sequence[Fault], precision: str, expected: Sequence[Look] | None = None) -> Observed:
    """Run the reference with ``faults``, or without any; give up as soon as it differs from ``expected``.

    Raises:
        ClashError: if two of the faults cannot be combined.
    """
    names = reference_with(faults)

    def as_expected(_: Sequence[Record], looks: Sequence[Look]) -> bool:
        return expected is None or (len(looks) <= len(expected) and looks[-1] == expected[len(looks) - 1])

    return observe(names["reference"], names["build"], precision, as_expected)


def in_a_line(error: BaseException) -> str:
    """Return an exception's type, and the first line of its message."""
    try:
        message = str(error).strip().split("\n")[0]
    except Exception:
        message = "no words"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def judged(record: Record) -> Look:
    """Return the part of ``record`` that is judged: all but random state and modes, which may change without effect."""
    content = frozenset(
        (part, name, _judged(value))
        for part, values in record.parts.items()
        if part not in (Part.RNG, Part.MODES)
        for name, value in values.items()
    )
    assert record.place, "only records with values are judged"
    return Look(record.place, content)


def _judged(value: Printed) -> object:
    if isinstance(value, Fingerprint):
        return value.dtype, value.shape, tuple(walk(value.shape, value.strides)), value.layout, value.digest
    return type(value).__name__, repr(value)


def common_prefix(one: Sequence[Look], other: Sequence[Look]) -> int:
    """Return the number of looks that two loops share before they diverge."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
