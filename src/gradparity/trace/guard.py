"""The seam between a training and those who watch it: what is behind it can neither change a call nor break one.

A watcher is a generator function with one ``yield``. What is before it runs before the watched call, what is after it
runs afterwards, with the call's result as the value of ``yield``. It is handed the arguments to read; the call itself
is made here, with the arguments as they came, and its result goes back as it came.
"""

import os
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from threading import RLock
from typing import Any, TypeAlias

from gradparity.trace.isolation import aside, capturing
from gradparity.trace.patch import Wrapper


@dataclass(frozen=True)
class Call:
    """The arguments of a watched call; of a method, the first is its object."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """Return the argument at ``index``, or the one called ``name``."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)


Watcher: TypeAlias = Callable[[Call], Generator[None, Any, None]]


class Guard:
    """Runs code of ours in the middle of a training, one thread at a time, until something goes wrong in it.

    Only an ``Exception`` counts as that. Others pass: an interrupt is meant for the training, and whoever watches a
    loop that is to be given up raises one of their own.

    Args:
        on_fault: called once, with the error.
    """

    def __init__(self, on_fault: Callable[[Exception], None]) -> None:
        self.on_fault = on_fault
        self.over = False
        """Whether nothing more is run."""
        self.skipped = 0
        """How often nothing was run since a CUDA graph was being captured."""
        self._lock = RLock()
        self._process = os.getpid()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what ``function`` returns; ``None`` if it fails, and without a call if something failed before."""
        if self.over or os.getpid() != self._process:  # a forked process has inherited us, and our open file
            return None
        try:
            if capturing():
                self.skipped += 1
                return None
            with self._lock, aside():
                return function(*args)
        except Exception as error:
            if not self.over:
                self.over = True
                self.on_fault(error)
            return None

    def around(self, watcher: Watcher) -> Wrapper:
        """Return a wrapper that lets ``watcher`` see each call before and after it is made."""

        def wrapper(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            watching = self.run(_begun, watcher, Call(args, kwargs))
            try:
                result = original(*args, **kwargs)
            except BaseException:
                self.run(_closed, watching)
                raise
            self.run(_ended, watching, result)
            return result

        return wrapper


def _begun(watcher: Watcher, call: Call) -> Generator[None, Any, None]:
    watching = watcher(call)
    next(watching)
    return watching


def _ended(watching: Generator[None, Any, None] | None, result: Any) -> None:
    if watching is not None:
        with suppress(StopIteration):
            watching.send(result)


def _closed(watching: Generator[None, Any, None] | None) -> None:
    if watching is not None:
        watching.close()
