"""Events with values that a GPU still computes: the loop goes on, and they are read later."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, get_args

from gradparity.auditing.events import LoopEvent, Modes, What
from gradparity.auditing.watching.graph_facts import Signs
from gradparity.auditing.watching.later import WAITED

_NESTED: Final = (Modes, Signs, *get_args(What))
"""Facts in an event that may hold late values themselves."""


def is_ready(event: LoopEvent) -> bool:
    """Return whether nothing in an event has to be waited for."""
    return all(value.ready() for value in _late_in(event))


def with_all_read(event: LoopEvent) -> LoopEvent:
    """Return an event with everything in it that was late, after a wait for it."""
    for look in (event.before, event.after):
        if isinstance(look, WAITED):
            look.get()
    return replace(event, what=_read(event.what)) if any(_late_in(event.what)) else event


def _late_in(fact: Any) -> Iterator[Any]:
    """Yield the late values in an event, or in what happened at it."""
    for value in vars(fact).values():
        if isinstance(value, WAITED):
            yield value
        elif isinstance(value, _NESTED):
            yield from _late_in(value)


def _read(fact: Any) -> Any:
    """Return a fact with its late values read."""
    own = vars(fact).items()
    late = {name: value.get() for name, value in own if isinstance(value, WAITED)}
    late |= {name: _read(value) for name, value in own if isinstance(value, _NESTED) and any(_late_in(value))}
    return replace(fact, **late)
