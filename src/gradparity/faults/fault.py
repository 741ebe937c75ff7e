"""A fault: a change of a few lines to the reference, which makes a loop that is wrong in one way only."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gradparity.parity.lockstep import Step
from gradparity.training import Route, manual, train_step


@dataclass(frozen=True)
class Fault:
    """Lines of the reference, and what stands in their place in a loop that has this fault."""

    name: str
    symptom: str
    """What somebody who trains with it would notice, if anything."""
    right: str
    wrong: str
    changes: Callable[..., Any] = train_step
    """The function of the reference that holds ``right``: ``train_step`` or the ``manual`` route."""
    sources: tuple[str, ...] = ()
    """Where it happened."""


def loop_with(fault: Fault) -> tuple[Step, Route]:
    """The reference step and the manual route, one of them with ``fault``."""
    wrong = rewritten(fault.changes, fault.right, fault.wrong)
    return (wrong, manual) if fault.changes is train_step else (train_step, wrong)


def rewritten(function: Callable[..., Any], right: str, wrong: str, **known: object) -> Callable[..., Any]:
    """``function`` compiled anew with ``wrong`` in the place of ``right``, comment lines aside.

    ``known`` are the names that ``wrong`` uses and the module of ``function`` does not have.

    Raises:
        ValueError: if the source of ``function`` does not hold ``right`` exactly once, as when one of them was
            changed and the other forgotten.
    """
    source = _without_comment_lines(inspect.getsource(function))
    if source.count(right) != 1:
        raise ValueError(f"{function.__name__} holds these lines {source.count(right)} times, not once:\n{right}")
    names = {**function.__globals__, **known}
    exec(compile(source.replace(right, wrong), f"<{function.__name__} with a fault>", "exec"), names)
    changed: Callable[..., Any] = names[function.__name__]
    return changed


def _without_comment_lines(source: str) -> str:
    return "".join(line for line in source.splitlines(keepends=True) if not line.lstrip().startswith("#"))
