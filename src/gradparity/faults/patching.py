"""The reference, recompiled from its own source with faults in it.

All its functions are compiled into one namespace, so that each calls the changed versions of the others.
"""

import contextlib
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from gradparity import training
from gradparity.faults.fault import Change, Fault
from gradparity.faults.stress_scenario import StressModel, build, reference, run_of
from gradparity.parity.batch import summed_loss
from gradparity.parity.lockstep import Step
from gradparity.training import Route, manual
from gradparity.training.loop import unnoticed
from gradparity.training.optimizers import decay_groups

Namespace: TypeAlias = dict[str, Any]

REFERENCE_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    summed_loss,
    training.windows,
    training.backward,
    training.manual,
    training.clip_by_norm,
    decay_groups,
    training.warmup_cosine,
    training.train_step,
    training.take_step,
    training.save,
    training.resume,
    unnoticed,
    training.validate,
    training.train,
    StressModel,
    run_of,
    build,
    reference,
)
"""The functions and classes that a fault may change."""


_HERE = Path(__file__)
"""The place that compiled functions name as their own, so that no line of theirs is taken for the user's."""


class ClashError(ValueError):
    """Two faults change the same lines, or one removes lines that the other needs, so no loop can have both."""


class _Edit(NamedTuple):
    """A replacement for the lines ``start`` to ``end``, exclusive, of a source."""

    start: int
    end: int
    lines: tuple[str, ...]


def loop_with(fault: Fault) -> tuple[Step, Route]:
    """Return the reference step and the manual route, with ``fault``, for a run in lockstep."""
    names = reference_with([fault])
    return names["train_step"], names["manual"]


def reference_with(
    changes: Sequence[Change], functions: Sequence[Callable[..., Any]] = REFERENCE_FUNCTIONS
) -> Namespace:
    """Return the ``functions`` of the reference by name, with ``changes`` in them.

    A change of the manual route shows only on that route. So with such a change the manual route is taken.

    Raises:
        ClashError: if two of the changes cannot be combined.
        ValueError: if the lines that a change replaces are not in the source exactly once, for example because only one
            of the two was changed.
    """
    names: Namespace = {}
    for thing in functions:
        names |= vars(sys.modules[thing.__module__])
    names |= {"__name__": __name__, "contextlib": contextlib, "itertools": itertools}
    names["check_it_loads"] = _loads  # nothing changes what is saved
    for thing in functions:
        exec(_compiled(thing, tuple(one.changes[thing] for one in changes if thing in one.changes)), names)
    if any(manual in one.changes for one in changes):
        names["backward"] = names["manual"]
    return names


def _loads(_: Any) -> None:
    """Stand in for a check that takes a tenth of the time of a run, and always passes here."""


@cache
def _compiled(thing: Callable[..., Any], patches: tuple[str, ...]) -> Any:
    try:
        name = f"<{thing.__name__} with {len(patches)} patches>"
        return compile(patched(thing, *patches), str(_HERE.with_name(name)), "exec")
    except SyntaxError:
        if len(patches) == 1:
            raise
        raise ClashError(f"two faults leave no sentence of Python in {thing.__name__}") from None


def patched(thing: Callable[..., Any], *patches: str) -> str:
    """Return the source of ``thing`` without its comments, and with ``patches``."""
    lines = source(thing)
    hunks = [hunk for patch in patches for hunk in patch.split("@@\n")]
    in_order = sorted({edit for hunk in hunks for edit in _edits_of(thing.__name__, lines, hunk)})
    for before, after in pairwise(in_order):
        if after.start < before.end or after.start == before.start:
            raise ClashError(f"two faults change line {after.start + 1} of {thing.__name__}")
    for edit in reversed(in_order):
        lines[edit.start : edit.end] = edit.lines
    return "".join(lines)


def _edits_of(name: str, lines: Sequence[str], hunk: str) -> Iterator[_Edit]:
    """Yield the edits that one place of a patch makes to ``lines``."""
    marked = [(line[0].strip(), line[1:] or "\n") for line in hunk.lstrip("\n").splitlines(keepends=True)]
    old = [line for mark, line in marked if mark != "+"]
    found = [start for start in range(len(lines)) if lines[start : start + len(old)] == old]
    if len(found) != 1:
        raise ValueError(f"{name} holds these lines {len(found)} times, not once:\n{''.join(old)}")
    at = found[0]
    for changed, block in groupby(marked, lambda line: line[0] != ""):
        here = list(block)
        end = at + sum(mark != "+" for mark, _ in here)
        if changed:
            yield _Edit(at, end, tuple(line for mark, line in here if mark == "+"))
        at = end


def source(thing: Callable[..., Any]) -> list[str]:
    """Return the lines of ``thing`` without comments, as a fresh list."""
    return list(_source(thing))


@cache
def _source(thing: Callable[..., Any]) -> tuple[str, ...]:
    lines = (line for line in inspect.getsource(thing).splitlines() if not line.lstrip().startswith("#"))
    return tuple(line.split("  # ")[0] + "\n" for line in lines)
