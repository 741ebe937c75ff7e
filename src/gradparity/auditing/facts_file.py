"""The facts of a run as a file, for another process of the same audit. Reading one runs no code from it."""

import pickle
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from enum import Enum
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import Tensor

from gradparity.auditing.events import LoopEvent
from gradparity.auditing.facts import RunFacts

_HOMES = ("gradparity.auditing.", "gradparity.trace.fingerprint", "gradparity.trace.digest")
_PLAIN = (int, float, str, bool, type(None))


def write_facts(facts: RunFacts, path: Path) -> None:
    """Write the facts of a run; the file is there when it is whole.

    Raises:
        OSError: if it cannot be written.
    """
    stories = [
        replace(story, groups=tuple(map(_plain, story.groups)), events=list(map(_with_tuples, story.events)))
        for story in facts.stories
    ]
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(pickle.dumps(replace(facts, stories=stories)))
    unfinished.replace(path)


def read_facts(path: Path) -> RunFacts:
    """Return the facts that :func:`write_facts` has written.

    Raises:
        OSError: if there is no such file.
        pickle.UnpicklingError: if it holds anything but facts.
    """
    facts = _FactsOnly(BytesIO(path.read_bytes())).load()
    if not isinstance(facts, RunFacts):
        raise pickle.UnpicklingError(f"{path.name} holds no facts")
    return facts


class _FactsOnly(pickle.Unpickler):
    """Reads numbers, text and the audit's own facts: a pickle could call any function otherwise."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class of facts.

        Raises:
            pickle.UnpicklingError: for anything else.
        """
        thing = super().find_class(module, name) if module.startswith(_HOMES) else None
        if isinstance(thing, type) and (is_dataclass(thing) or issubclass(thing, (Enum, tuple))):
            return thing
        raise pickle.UnpicklingError(f"{module}.{name} is no fact")


def _with_tuples(event: LoopEvent) -> LoopEvent:
    """Return an event whose looks are tuples."""
    return replace(event, before=tuple(event.before), after=tuple(event.after))


def _plain(group: Mapping[str, object]) -> dict[str, object]:
    """Return hyperparameters as plain values; what is none of these as text."""
    return {name: _plain_value(value) for name, value in group.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, (tuple, list)):
        return tuple(map(_plain_value, value))
    return value if type(value) in _PLAIN else repr(value)
