"""Two runs that advance side by side and are compared at each phase.

The live tensors are compared while both generators wait at the same phase. Only the data of a window is copied.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, TypeVar

from torch import Tensor

from gradparity.parity.compare import compare
from gradparity.parity.compare_all import compare_all
from gradparity.parity.dense_parts import is_simple, pieces
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.explanation_kinds import LikelyCause
from gradparity.parity.figures import Figures
from gradparity.parity.flatten_values import Value
from gradparity.parity.live_state import LiveState
from gradparity.parity.many_at_once import ManyPairs
from gradparity.parity.mismatches import Compared, Mismatch
from gradparity.parity.place_in_training import START, Place
from gradparity.parity.random_stream import RandomStream
from gradparity.parity.state import COMPARED, HasState, Part
from gradparity.training import Moment, Phase, Run, Window

_T = TypeVar("_T")
_V = TypeVar("_V")
Step: TypeAlias = Callable[[Run, Window[Any]], Iterator[Moment]]

ALL, STOPS = "all", "stops here"
"""The name and the words of a mismatch, if only one of the runs reaches a phase."""

_ALIKE: Final = Compared([], None, [])


@dataclass(frozen=True)
class LockstepRun:
    """A run, the step that drives it, and the random stream that it draws from."""

    run: Run
    step: Step
    random: RandomStream
    extra_state: Mapping[str, HasState] = field(default_factory=dict)
    """Other objects that a step changes, by name, such as an average of the weights or a second optimizer."""


@dataclass(frozen=True)
class Comparison:
    """The result at one place."""

    place: Place
    reference: Moment | None
    """``None`` if only the candidate passes through this place; also in traces, which hold records."""
    candidate: Moment | None
    checked: dict[Part, int]
    """Number of values, mostly tensors, of each part that were compared."""
    numbers: int
    """Number of numbers in those values."""
    mismatches: list[Mismatch]
    figures: dict[Part, Figures]
    """The size of the difference over all tensors of a part that differ in bits."""
    scale: float
    """The reference's loss scale."""
    unseen: Mapping[Part, Sequence[str]] = field(default_factory=dict)
    """Names of values that cannot be compared, or only by type and shape; they are not counted in ``checked``."""
    likely_cause: LikelyCause | None = None
    """The meaning of the difference, if more is known than this comparison shows, as for traces."""


def lockstep(
    reference: LockstepRun, candidate: LockstepRun, windows: Iterable[Window[Any]], done: int = 0
) -> Iterator[Comparison]:
    """Train both runs on the same windows, and yield a comparison for each phase.

    A run may leave out phases of single microbatches, for example if it differentiates a whole window at once.
    If only one run passes through a phase of the whole window, every part compared there is a mismatch.

    ``done`` is the number of steps before a checkpoint from which both runs resume; these were compared already.

    Raises:
        SharedMemoryError: if the runs share a tensor.
    """
    both = _Both(reference, candidate)
    if not done:
        start = Moment(START.phase)
        yield both.compare(START, start, start)
    for step, window in enumerate(windows, start=done):
        own = _copy_of(window)
        for place, ours, theirs in side_by_side(_moments(step, reference, window), _moments(step, candidate, own)):
            yield both.compare(place, ours, theirs)


def _copy_of(window: Window[Any]) -> Window[Any]:
    """Return the candidate's own copy of a window: a model that writes to its input would change the other run's data.

    A window that cannot be copied, as with a tensor that has a graph, is shared.
    """
    try:
        return deepcopy(window)
    except Exception:  # a user's batches may hold anything, and raise anything
        return window


def side_by_side(
    left: Iterator[tuple[Place, _T]], right: Iterator[tuple[Place, _T]]
) -> Iterator[tuple[Place, _T | None, _T | None]]:
    """Pair what two runs have at each place; ``None`` for the one that does not pass through it."""
    a, b = next(left, None), next(right, None)
    while a or b:
        if a and b and a[0] == b[0]:
            yield a[0], a[1], b[1]
            a, b = next(left, None), next(right, None)
        elif a and (not b or a[0] < b[0]):
            yield a[0], a[1], None
            a = next(left, None)
        elif b:
            yield b[0], None, b[1]
            b = next(right, None)


def _moments(number: int, side: LockstepRun, window: Window[Any]) -> Iterator[tuple[Place, Moment]]:
    step = side.step(side.run, window)
    while True:
        with side.random.active():
            moment = next(step, None)
        if moment is None:
            return
        yield Place.of(number, moment), moment


class _Both:
    """Both runs, and what is known of them from one comparison to the next."""

    def __init__(self, reference: LockstepRun, candidate: LockstepRun) -> None:
        self._scaler = reference.run.scaler
        self._sides = [LiveState(side.run, side.random.state, side.extra_state) for side in (reference, candidate)]
        safe = set[Any]()
        self._pairs = {phase: ManyPairs(safe) for phase in Phase}
        self._constants: dict[str, dict[str, Tensor]] = {}
        """Copies of buffers that both runs share."""

    def compare(self, place: Place, ours: Moment | None, theirs: Moment | None) -> Comparison:
        """Compare the state of both runs at the moments at which they have stopped."""
        found = Comparison(place, ours, theirs, {}, 0, [], {}, self._scaler.get_scale())
        if ours and theirs:
            return self._filled(found, ours, theirs)
        if place.microbatch is None:
            words = (STOPS, "does not") if ours else ("does not", STOPS)
            found.mismatches.extend(Mismatch(part, ALL, Kind.PRESENCE, *words) for part in COMPARED[place.phase])
        return found

    def _filled(self, found: Comparison, ours: Moment, theirs: Moment) -> Comparison:
        """Return ``found`` with the differences of all parts."""
        reference, candidate = (side.at(moment) for side, moment in zip(self._sides, (ours, theirs), strict=True))
        to_check = compare_all(self._pairs[ours.phase], reference, candidate)
        compared, numbers = dict[Part, Compared](), to_check.numbers
        for part, values in reference.items():
            compared[part] = _ALIKE
            if doubtful := to_check.doubtful[part]:
                compared[part] = compare(part, values, candidate[part], doubtful, self._constants)
                unseen = compared[part].unseen
                numbers += sum(_numbers_in(values[k]) for k in doubtful if k in values and k not in unseen)
        return with_parts(found, to_check.counts, compared, numbers)


def with_parts(
    found: Comparison, names: Mapping[Part, int], compared: Mapping[Part, Compared], numbers: int
) -> Comparison:
    """Return ``found``, a comparison at a place without results, with the results of its parts.

    Args:
        found: the comparison.
        names: the number of names in each part.
        compared: the result for each part.
        numbers: the number of numbers in the values that were compared.
    """
    unseen = dict[Part, Sequence[str]]()
    for part, (mismatches, figures, skipped) in compared.items():
        found.checked[part] = names[part] - len(skipped)
        found.mismatches.extend(mismatches)
        if figures:
            found.figures[part] = figures
        if skipped:
            unseen[part] = skipped
    return replace(found, numbers=numbers, unseen=unseen)


def _numbers_in(value: Value) -> int:
    """Return the number of numbers in a value."""
    if not isinstance(value, Tensor):
        return 1
    if is_simple(value):
        return value.numel()
    return sum(piece.numel() for piece in (pieces(value) or {}).values())
