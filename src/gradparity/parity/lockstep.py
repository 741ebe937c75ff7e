"""Two runs advanced side by side, and compared wherever both have stopped.

While both generators wait at the same phase, their live tensors are compared. Only the data of a window is copied.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from torch import Tensor

from gradparity.parity.compare import Kind, Mismatch, compare
from gradparity.parity.compare_on_gpu import compared_there
from gradparity.parity.dense_parts import is_simple, pieces
from gradparity.parity.leaves import Value
from gradparity.parity.meaning import Said
from gradparity.parity.metrics import Figures
from gradparity.parity.random_stream import RandomStream
from gradparity.parity.state import COMPARED, HasState, Part, state_of
from gradparity.training import Moment, Phase, Run, Window

Step: TypeAlias = Callable[[Run, Window[Any]], Iterator[Moment]]

START = -1
"""The step of the comparison that precedes the first step: two runs that start apart cannot meet."""

END = -2
"""The step of the comparison that follows the last step, where there is one."""


ALL, STOPS = "all", "stops here"
"""The name of what is compared, and what is said of a run, where only one comes to a phase."""


@dataclass(frozen=True)
class Lane:
    """A run, the step that drives it, and the random stream that it draws from."""

    run: Run
    step: Step
    random: RandomStream
    also: Mapping[str, HasState] = field(default_factory=dict)
    """What else it has that a step changes, such as an average of the weights or a second optimizer."""


@dataclass(frozen=True)
class Comparison:
    """What was found at one phase of one step."""

    step: int
    phase: Phase
    microbatch: int | None
    reference: Moment | None
    """``None`` where only the candidate passes through this phase."""
    candidate: Moment | None
    checked: dict[Part, int]
    """How many values, tensors mostly, of each part were held against each other."""
    numbers: int
    """How many numbers those values hold."""
    mismatches: list[Mismatch]
    figures: dict[Part, Figures]
    """The size of the difference over all tensors of a part that differ in bits."""
    scale: float
    """The reference's loss scale."""
    unseen: Mapping[Part, Sequence[str]] = field(default_factory=dict)
    """The names of what cannot be compared, or only by type and shape; it counts in nothing else."""
    said: Said | None = None
    """What a difference means, where more is known than this comparison shows: of traces."""


def lockstep(reference: Lane, candidate: Lane, windows: Iterable[Window[Any]], done: int = 0) -> Iterator[Comparison]:
    """Train both lanes on the same windows, and yield what was found wherever they stop.

    A lane may pass over phases of single microbatches, as one does that differentiates a whole window at once.
    A phase of the window that only one lane passes through is a mismatch in all that would have been compared.

    Lanes that go on from a checkpoint have ``done`` some steps, and were compared after them.

    Raises:
        SharedMemoryError: if the lanes share a tensor.
    """
    constants: dict[str, dict[str, Tensor]] = {}
    if not done:
        start = Moment(Phase.STEPPED)
        yield _compare(START, start, start, reference, candidate, constants)
    for step, window in enumerate(windows, start=done):
        own = copied(window)
        for ours, theirs in side_by_side(_moments(reference, window), _moments(candidate, own)):
            yield _compare(step, ours, theirs, reference, candidate, constants)


def copied(window: Window[Any]) -> Window[Any]:
    """The candidate's own copy of a window: a model that writes its input in place would change the other's data.

    What cannot be copied, such as a tensor with a graph, is shared.
    """
    try:
        return deepcopy(window)
    except Exception:  # of whatever a user's batches are made of
        return window


def side_by_side(
    left: Iterator[Moment], right: Iterator[Moment]
) -> Iterator[tuple[Moment, Moment] | tuple[Moment, None] | tuple[None, Moment]]:
    """Pair the moments of two steps by their place in the step; ``None`` where one has no such moment."""
    a, b = next(left, None), next(right, None)
    while a or b:
        if a and b and _place(a) == _place(b):
            yield a, b
            a, b = next(left, None), next(right, None)
        elif a and (not b or _place(a) < _place(b)):
            yield a, None
            a = next(left, None)
        elif b:
            yield None, b
            b = next(right, None)


def _place(moment: Moment) -> tuple[float, Phase]:
    return (math.inf if moment.microbatch is None else moment.microbatch), moment.phase


def _moments(lane: Lane, window: Window[Any]) -> Iterator[Moment]:
    step = lane.step(lane.run, window)
    while True:
        with lane.random.active():
            moment = next(step, None)
        if moment is None:
            return
        yield moment


def _compare(
    step: int,
    ours: Moment | None,
    theirs: Moment | None,
    reference: Lane,
    candidate: Lane,
    constants: dict[str, dict[str, Tensor]],
) -> Comparison:
    moment = ours or theirs
    assert moment
    scale = reference.run.scaler.get_scale()
    found = Comparison(step, moment.phase, moment.microbatch, ours, theirs, {}, 0, [], {}, scale, {})
    if ours and theirs:
        return _filled(found, reference, candidate, constants)
    if moment.microbatch is None:
        words = (STOPS, "does not") if ours else ("does not", STOPS)
        found.mismatches.extend(Mismatch(part, ALL, Kind.PRESENCE, *words) for part in COMPARED[moment.phase])
    return found


def _filled(found: Comparison, reference: Lane, candidate: Lane, constants: dict[str, dict[str, Tensor]]) -> Comparison:
    """``found`` with what both lanes hold at this moment, compared."""
    assert found.reference
    assert found.candidate
    parts = COMPARED[found.phase]
    of_reference = state_of(reference.run, parts, found.reference, reference.random.state, reference.also)
    of_candidate = state_of(candidate.run, parts, found.candidate, candidate.random.state, candidate.also)
    same = compared_there((of_reference[part], of_candidate[part]) for part in parts)
    numbers, unseen = 0, dict[Part, Sequence[str]]()
    for part in parts:
        a, b = of_reference[part], of_candidate[part]
        mismatches, size, names = compare(part, a, b, same, constants)
        found.checked[part] = len(a.keys() | b.keys()) - len(names)
        passed_over = set(names)
        numbers += sum(numbers_in(value) for name, value in a.items() if name not in passed_over)
        found.mismatches.extend(mismatches)
        if size:
            found.figures[part] = size
        if names:
            unseen[part] = names
    return replace(found, numbers=numbers, unseen=unseen)


def numbers_in(value: Value) -> int:
    """How many numbers a value holds."""
    if not isinstance(value, Tensor):
        return 1
    if is_simple(value):
        return value.numel()
    return sum(piece.numel() for piece in (pieces(value) or {}).values())
