"""Guard between a training and its watchers: a watcher can neither change a call nor break one.

A watcher is a generator function with one ``yield``. The code before ``yield`` runs before the watched call. The code
after ``yield`` runs after the call, with the call's result as the value of ``yield``. The watcher may only read the
arguments. The guard makes the call itself, with unchanged arguments, and returns the unchanged result.
"""

import os
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass
from threading import RLock
from typing import Any, TypeAlias

from gradparity.trace.isolation import aside, capturing, raised_by_a_signal
from gradparity.trace.wrapping import Wrapper


@dataclass(frozen=True)
class Call:
    """The arguments of a watched call; for a method, the first is its object."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """Return the argument at ``index``, or the keyword argument ``name``, or ``default``."""
        return self.args[index] if index < len(self.args) else self.kwargs.get(name, default)


Watching: TypeAlias = Generator[None, Any, None]
"""A watcher in the middle of a call."""

Watcher: TypeAlias = Callable[[Call], Watching]


class Guard:
    """Runs the recorder's code in the middle of a training, one thread at a time, until that code fails.

    Only an ``Exception`` counts as a failure. Any other ``BaseException`` passes through: an interrupt is meant for the
    training, and a watcher that has to stop the loop raises its own. What a signal handler raises passes through too.

    Args:
        on_fault: called once, with the error.
        on_capture: called with each function that is not run because a CUDA graph is being captured, and its arguments.
    """

    def __init__(
        self, on_fault: Callable[[Exception], None], on_capture: Callable[..., None] = lambda *_: None
    ) -> None:
        self.on_fault, self.on_capture = on_fault, on_capture
        self.over = False
        """True once the guard has stopped and runs nothing more."""
        self.skipped = 0
        """The number of calls that were not run because a CUDA graph was being captured."""
        self._lock = RLock()
        self._process = os.getpid()

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return the result of ``function``; ``None`` if it fails. After a failure, return ``None`` without a call."""
        if self.over or os.getpid() != self._process:  # a forked process inherits the guard, and the open trace
            return None
        try:
            if capturing():
                self.skipped += 1
                self.on_capture(function, *args)
                return None
            with self._lock, aside():
                return function(*args)
        except Exception as error:
            if raised_by_a_signal(error):
                raise
            if not self.over:
                self.over = True
                self.on_fault(error)
            return None

    def around(self, watcher: Watcher) -> Wrapper:
        """Return a wrapper that runs ``watcher`` before and after each call."""

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
