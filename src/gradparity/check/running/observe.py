"""Observation of a loop under the stress scenario: a trace in memory, and the part of it that is judged."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from gradparity.check.running.loop_end import EndKind, LoopEnd, end_by
from gradparity.faults.fault import Change
from gradparity.faults.patching import reference_with
from gradparity.faults.stress_scenario import Cast
from gradparity.parity.difference_kinds import effective_strides
from gradparity.parity.place_in_training import Place
from gradparity.parity.random_stream import RandomStream, seed_of
from gradparity.parity.state import Part
from gradparity.trace.autograd_graph import Reach
from gradparity.trace.events import PHASE, Event, Record, Trace
from gradparity.trace.fingerprint import Fingerprint, FingerprintValue
from gradparity.trace.snapshot import Snapshot, TrainingObjects
from gradparity.trace.step_recorder import Recorder

UserLoop: TypeAlias = Callable[..., Any]

_MOST_RECORDS = 500
"""About five times the records of the reference; a loop that makes more will not stop by itself."""


class Observation(NamedTuple):
    """The part of a record that is judged. Two loops are the same training if all of these are equal, in order."""

    place: Place
    content: frozenset[tuple[Part, str, object]]


GoOn: TypeAlias = Callable[[Sequence[Record], Sequence[Observation]], bool]
"""Called after each observation; returns whether to observe more of the loop."""


@dataclass(frozen=True)
class ObservedLoop:
    """All observations of one run of a loop."""

    trace: Trace
    observations: list[Observation]
    end: LoopEnd = LoopEnd()  # noqa: RUF009  # it is frozen
    gradients_elsewhere: bool = False
    """True if it computed gradients, but never of what it was given to train."""
    moves: tuple[Record, ...] = ()
    """Before the first step of the optimizer that it was given: for each change of the weights, the backward before."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObservedLoop) and (self.observations, self.end) == (other.observations, other.end)

    __hash__ = None  # type: ignore[assignment]  # compared, never a key


class Overflow(NamedTuple):
    """A step at which only one of loop and reference overflows."""

    step: int
    of_loop: bool
    """True if the loop does; false if the reference does."""


class RecordSink(Protocol):
    """A receiver of all records with the live values behind them, such as a writer of traces."""

    def write(self, record: Record, seen: Snapshot) -> None:
        """Take one record."""


class _Enough(BaseException):  # no error; and no `except Exception` in a loop may catch it
    """Stops a loop that needs no more observation. If the loop goes on anyway, nothing more is recorded."""


def observe(
    loop: UserLoop,
    build: Callable[[str], Cast],
    precision: str,
    go_on: GoOn = lambda records, observations: True,
    writer: RecordSink | None = None,
    seed: int = 0,
    trim: Callable[[Record], Record] = lambda record: record,
) -> ObservedLoop:
    """Run ``loop`` on what ``build`` makes, and return what was observed.

    Args:
        loop: called with everything in the cast, by name.
        build: makes the cast for a precision.
        precision: a key of :data:`gradparity.training.PRECISIONS`.
        go_on: called after each observation; if it returns false, the loop is stopped.
        writer: receives every record as well.
        seed: of the weights and masks.
        trim: removes what is of no interest from a record.
    """
    records: list[Record] = []
    moves: list[Record] = []
    weights: Tensor | None = None
    observations: list[Observation] = []
    end: LoopEnd | None = None

    def write(record: Record, seen: Snapshot) -> None:
        nonlocal end, weights
        if end is not None:
            raise _Enough
        record = trim(record)
        records.append(record)
        if writer is not None:
            writer.write(record, seen)
        if record.event in PHASE:
            observations.append(_judged(record))
            if record.step == 0 and record.event in (Event.FORWARD, Event.END):
                before, weights = weights, all_weights(cast.model)
                moves.extend(r for r in _last_backward(records) if not _alike(before, weights))
            if not go_on(records, observations):
                end = LoopEnd(EndKind.STOPPED)
        if len(records) > _MOST_RECORDS:
            end = LoopEnd(EndKind.ENDLESS)
        if end is not None:
            raise _Enough

    torch.set_num_threads(1)
    with RandomStream(seed_of(seed, "stress")).active(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cast = build(precision)
        weights = all_weights(cast.model)
        recorder = Recorder(TrainingObjects(cast.model, cast.optimizer, cast.scaler, cast.scheduler), write)
        try:
            with recorder.watching():
                loop(**vars(cast))
        except (_Enough, KeyboardInterrupt):
            if end is None:
                raise
        except BaseException as error:
            end = end or end_by(error)
    if recorder.fault is not None:  # an error of this package or of the disk, not of the loop
        raise recorder.fault
    elsewhere, trace = recorder.lacks.backwards.keys() == {Reach.NO}, Trace({}, records, complete=end is None)
    return ObservedLoop(trace, observations, end or LoopEnd(), elsewhere, tuple(moves))


def all_weights(model: nn.Module) -> Tensor | None:
    """Return a copy of all parameters as one vector; ``None`` if they make none, as on several devices."""
    try:
        return parameters_to_vector(p.detach() for p in model.parameters()).clone()
    except Exception:
        return None


def _alike(before: Tensor | None, now: Tensor | None) -> bool:
    return before is None or now is None or (before.dtype == now.dtype and torch.equal(before, now))


def backwards_a_move(loop: ObservedLoop) -> int | None:
    """Return the number of backwards before most changes of the weights; ``None`` if they never change."""
    backwards = [record for record in loop.trace.records if record.event == Event.ACCUMULATED]
    ends = [index for index, record in enumerate(backwards, start=1) if any(record is move for move in loop.moves)]
    numbers = Counter(end - begin for begin, end in pairwise([0, *ends]))
    return next((number for number, _ in numbers.most_common(1)), None)


def _last_backward(records: Sequence[Record]) -> list[Record]:
    return [r for r in records if r.event == Event.ACCUMULATED][-1:]


def observe_reference(
    faults: Sequence[Change], precision: str, expected: Sequence[Observation] | None = None
) -> ObservedLoop:
    """Run the reference with ``faults``, or without any; stop as soon as it differs from ``expected``.

    Raises:
        ClashError: if two of the faults cannot be combined.
    """
    names = reference_with(faults)

    def as_expected(_: Sequence[Record], found: Sequence[Observation]) -> bool:
        return expected is None or (len(found) <= len(expected) and found[-1] == expected[len(found) - 1])

    return observe(names["reference"], names["build"], precision, as_expected)


def _judged(record: Record) -> Observation:
    """Return the part of ``record`` that is judged: all but random state and modes, which may change without effect."""
    content = frozenset(
        (part, name, _comparable(value))
        for part, values in record.parts.items()
        if part not in (Part.RNG, Part.MODES)
        for name, value in values.items()
    )
    assert record.place, "only records with values are judged"
    return Observation(record.place, content)


def _comparable(value: FingerprintValue) -> object:
    if isinstance(value, Fingerprint):
        return value.dtype, value.shape, tuple(effective_strides(value)), value.layout, value.digest
    return type(value).__name__, repr(value)


def common_prefix(one: Sequence[Observation], other: Sequence[Observation]) -> int:
    """Return the number of observations that two loops share before they diverge."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
