"""Ends of a process that run no ``finally``, SIGTERM and ``os._exit``: the report is written before them."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

EXITED = "by os._exit"


class Terminated(BaseException):
    """SIGTERM has arrived; raised where the script runs, as Ctrl-C raises ``KeyboardInterrupt``."""


@contextmanager
def before_the_end(report: Callable[[int], int]) -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated` in the block, and ``os._exit`` report first.

    Processes that the script forks end as they would without this. A handler of the script's own replaces ours.

    Args:
        report: called with the code of ``os._exit``; returns the exit code to end with.
    """
    process, leave = os.getpid(), os._exit

    def reported(status: int) -> NoReturn:
        if os.getpid() == process:
            os._exit = leave
            status = report(status)
        leave(status)

    def terminate(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() == process:
            raise Terminated
        os.kill(os.getpid(), number)

    ours: Any = None
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        ours = terminate
        signal.signal(signal.SIGTERM, terminate)
    os._exit = reported
    try:
        yield
    finally:
        os._exit = leave
        if ours is not None and signal.getsignal(signal.SIGTERM) is ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
