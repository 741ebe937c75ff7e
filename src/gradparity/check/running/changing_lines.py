"""The lines of the user's file that write what differs first from the reference.

The loop runs once more, line by line. After each line, every value that a step depends on is compared with the one
before it: gradients, weights, moments and hyperparameters, and what no observation shows, which are the batches and the
numbers in layers, such as the probability of a dropout. So a difference leads to the lines that wrote that value after
the last place where it was still the reference's.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeAlias

from torch import Tensor

from gradparity.auditing.watching.user_lines import Line, of_the_user
from gradparity.check.running.observe import Observation, UserLoop
from gradparity.faults.stress_scenario import Cast
from gradparity.parity.state import Part
from gradparity.trace.events import Record
from gradparity.trace.snapshot import TrainingObjects, at_end, live_gradients

Name: TypeAlias = tuple[str, str]
"""A part of the state, or what no observation shows, and the name of a value in it."""

_MOST_LINES = 4000
_SECONDS = 5.0
"""The time after which lines are watched no longer: a loop of many lines has to come to its end."""
_MOST_SHOWN = 8
_HEADERS = ("for ", "with ", "while ", "def ", "return", "yield")
"""The beginnings of lines that compute nothing themselves."""

_SETTINGS, _BATCHES = "numbers in a layer", "batches"


@dataclass(frozen=True)
class LineRun:
    """One run of a line: the observations before and after it, and the values that it changed."""

    line: Line
    begins: int
    """The number of observations that were made before it."""
    ends: int
    changed: frozenset[Name]
    empties: bool = False
    """True if it leaves no gradient."""


@dataclass
class LineWatcher:
    """A trace function that notes what each line of the user changes."""

    runs: list[LineRun] = field(default_factory=list)
    _made: int = 0
    _until: float = 0.0
    _values: dict[Name, object] = field(default_factory=dict)
    _open: list[tuple[Line, int]] = field(default_factory=list)

    def build(self, build: Callable[[str], Cast], precision: str) -> Cast:
        """Build the scenario with ``build``, and remember it."""
        self._cast = build(precision)
        cast = self._cast
        self._watched = TrainingObjects(cast.model, cast.optimizer, cast.scaler, cast.scheduler)
        self._values = self._now()
        return cast

    def count(self, _: Sequence[Record], observations: Sequence[Observation]) -> bool:
        """Count the observations; call this after each. The result is always true, so that the loop goes on."""
        self._made = len(observations)
        return True

    def watching(self, loop: UserLoop) -> UserLoop:
        """Return ``loop``, which is traced whenever it runs."""

        def traced(**arguments: Any) -> None:
            before, self._until = sys.gettrace(), time.monotonic() + _SECONDS
            sys.settrace(self._called)
            try:
                loop(**arguments)
            finally:
                sys.settrace(before)

        return traced

    def _called(self, frame: FrameType, event: str, _: object) -> Any:
        if self._enough():
            return None
        wanted = of_the_user(frame.f_code.co_filename)
        if wanted and self._open:
            self._settle()
        return self._line if wanted else None

    def _enough(self) -> bool:
        """Return whether enough lines were watched, and if so, watch no more."""
        if len(self.runs) < _MOST_LINES and time.monotonic() < self._until:
            return False
        sys.settrace(None)
        return True

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if self._enough():
            return None
        self._settle()
        back = frame.f_back if event == "return" else frame
        while back is not None and not of_the_user(back.f_code.co_filename):
            back = back.f_back
        if back is not None:
            line = Line(back.f_code.co_filename, back.f_lineno, back.f_code.co_name)
            self._open = [(line, self._made)]
        return self._line

    def _settle(self) -> None:
        """Note the changes of the line that ran until now."""
        if not self._open:
            return
        (line, begins), self._open = self._open[0], []
        try:
            now = self._now()
        except Exception:  # of values that cannot be read, such as those of a tensor subclass; the loop goes on
            self.runs.clear()
            sys.settrace(None)
            return
        names = now.keys() | self._values.keys()
        # A new attribute is a variable of the loop's.
        known = (name for name in names if name[0] != _SETTINGS or name in self._values)
        changed = frozenset(name for name in known if now.get(name) != self._values.get(name))
        self._values = now
        gradients = (p.grad for p in self._cast.model.parameters())
        emptied = all(gradient is None or not gradient.any() for gradient in gradients)
        empties = emptied and any(part == Part.GRADIENTS for part, _ in changed)
        self.runs.append(LineRun(line, begins, self._made, changed, empties))

    def _now(self) -> dict[Name, object]:
        self._watched.look_again()
        seen = {**at_end(self._watched), **live_gradients(self._watched)}
        found: dict[Name, object] = {
            (part, name): _comparable(value) for part, values in seen.items() for name, value in values.items()
        }
        for name, module in self._cast.model.named_modules():
            for key, value in vars(module).items():
                if isinstance(value, int | float) and key != "training" and not key.startswith("_"):
                    found[_SETTINGS, f"{name}.{key}"] = value
        for name, p in self._watched.parameters.items():
            found[_SETTINGS, f"{name}.requires_grad"] = p.requires_grad
        for index, batch in enumerate(self._cast.batches):
            found[_BATCHES, str(index)] = tuple(map(_comparable, batch))
        return found


def _comparable(value: object) -> object:
    if not isinstance(value, Tensor):
        return repr(value)
    dense = value.detach().to_dense() if value.layout != Tensor().layout else value.detach()
    return dense.dtype, tuple(dense.shape), dense.contiguous().numpy().tobytes()


def changing_lines(
    runs: Iterable[LineRun], loop: Sequence[Observation], reference: Sequence[Observation], shared: int
) -> list[Line]:
    """Return the lines that wrote what differs first, in the order in which they ran; empty if none is to blame.

    Args:
        runs: everything that ran.
        loop: the observations of the loop.
        reference: those of the reference.
        shared: the number of observations that both share.
    """
    until = [run for run in runs if run.begins <= shared]
    if hidden := _lines(run for run in until if any(part in (_SETTINGS, _BATCHES) for part, _ in run.changed)):
        return hidden
    if shared >= len(loop) or shared >= len(reference):
        return []
    if loop[shared].place != reference[shared].place:  # one of the two does something else here
        return _lines(_computing(until, shared))
    differing = _differing(loop[shared], reference[shared])
    since = {name: _last_seen(name, loop[:shared]) for name in differing}
    writing = [run for run in until if _writes(run, since)]
    alone = [run for run in writing if run.begins == run.ends and not run.empties]
    return _lines(alone or [run for run in writing if run.ends > shared] or _computing(until, shared))


def writing_weights(runs: Iterable[LineRun]) -> list[Line]:
    """Return the lines that write weights without a step of the optimizer."""
    return _lines(r for r in runs if r.begins == r.ends and any(part == Part.PARAMETERS for part, _ in r.changed))


def _differing(one: Observation, other: Observation) -> set[Name]:
    names: set[Name] = {(part, name) for part, name, _ in one.content ^ other.content}
    if any(part == Part.LOSS for part, _ in names):  # statistics of a batch differ with it
        names = {(part, name) for part, name in names if part != Part.BUFFERS}
    return names


def _last_seen(name: Name, before: Sequence[Observation]) -> int:
    """Return the number of observations up to the last one that has such a value."""
    held = ({(part, key) for part, key, _ in observation.content} for observation in reversed(before))
    return len(before) - next((back for back, names in enumerate(held) if name in names), len(before))


def _writes(run: LineRun, since: Mapping[Name, int]) -> bool:
    return any(name in since and run.ends >= since[name] and run.begins >= since[name] - 1 for name in run.changed)


def _computing(runs: Iterable[LineRun], shared: int) -> list[LineRun]:
    """Return the lines that ran since the last observation that both share."""
    return [run for run in runs if run.begins == shared and not run.line.source.startswith(_HEADERS)]


def _lines(runs: Iterable[LineRun]) -> list[Line]:
    once = {(run.line.file, run.line.number): run.line for run in runs}
    return list(once.values())[-_MOST_SHOWN:]
