"""Ends of a process that run no ``finally``, SIGTERM, ``os._exit`` and ``os.execv``: the report is written before."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FrameType
from typing import Any, NoReturn

EXITED = "by os._exit"
REPLACED = "by os.execv; the program that it became is not watched"


class Terminated(BaseException):
    """SIGTERM has arrived; raised where the script runs, as Ctrl-C raises ``KeyboardInterrupt``."""


@contextmanager
def before_the_end(report: Callable[[int, str], int]) -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated` in the block, and ``os._exit`` and ``os.execv`` report first.

    Processes that the script forks end as they would without this. A handler of the script's own replaces ours.

    Args:
        report: called with an exit code, and words on the end; returns the exit code to end with.
    """
    process, leave = os.getpid(), os._exit

    def reported(status: int) -> NoReturn:
        if os.getpid() == process:
            os._exit = leave
            status = report(status, EXITED)
        leave(status)

    def replacing(execute: Callable[..., NoReturn]) -> Callable[..., NoReturn]:
        def replaced(*arguments: Any) -> NoReturn:
            if os.getpid() == process:
                report(0, REPLACED)
            execute(*arguments)

        return replaced

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if ours:
        _spare_forked_processes()
        signal.signal(signal.SIGTERM, _terminate)
    execv, execve = os.execv, os.execve
    os._exit, os.execv, os.execve = reported, replacing(execv), replacing(execve)
    try:
        yield
    finally:
        os._exit, os.execv, os.execve = leave, execv, execve
        if ours and signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)
    raise Terminated


@cache
def _spare_forked_processes() -> None:
    """Give forked processes the default for SIGTERM; one that comes while they are made waits until they have it."""

    def block() -> None:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def unblock() -> None:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    def restore() -> None:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    if hasattr(os, "register_at_fork"):  # there is none on Windows
        os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=restore)
