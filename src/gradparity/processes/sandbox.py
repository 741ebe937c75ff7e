"""A sandbox for user code: a separate process, which the code may hang, crash, exit, or leave in any state.

The process is a fork of this one: nothing is imported twice, and the code need not be importable. It sees no GPU. On a
machine with a GPU, gradients must not have been computed in this process before
(https://github.com/pytorch/pytorch/wiki/Autograd-and-Fork).
"""

import faulthandler
import gc
import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, TypeVar

import torch

from gradparity.errors import UserError
from gradparity.processes import user_frames
from gradparity.processes.device import without_gpus

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds that a loop may take by default; the reference takes a fraction of a second."""

GRACE = 10.0
"""Extra seconds after which the parent ends a process that its own alarm should have ended.

User code may have undone that alarm. The process may also be busy for this long between two runs of user code, which
takes a fraction of a second.
"""

CRASHES = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")


@dataclass(frozen=True)
class _Result:
    of: Any


@dataclass(frozen=True)
class Watch:
    """The time limit on user code in a process, and the connection over which the process reports."""

    patience: float
    """Seconds."""
    connection: Connection | None = None
    stack: IO[str] | None = None
    """The file to which ``faulthandler`` writes what the process was doing when it ended."""

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """Limit the time of user code in the block.

        If ``what`` is not over in time, the process ends, and its parent reports that.
        """
        if self.connection is None or self.stack is None:
            yield
            return
        process = os.getpid()
        self.connection.send(what)
        # A thread in C: it needs neither the GIL nor the main thread, and it also ends an orphan.
        faulthandler.dump_traceback_later(self.patience, exit=True, file=self.stack)
        try:
            yield
        finally:
            if os.getpid() != process:
                self.connection.send(UserError(f"{what} forks, and returns in both processes; let one of them exit"))
                os._exit(0)
            faulthandler.cancel_dump_traceback_later()
            self.connection.send("")


def apart(work: Callable[[Watch], T], patience: float) -> T:
    """Call ``work`` in a separate process and return its result; end that process and all that it has started.

    Args:
        work: runs user code under its watch only. Its result is pickled.
        patience: seconds that each such run may take.

    Raises:
        UserError: if there is no result, because the process crashed, exited, or had to be ended; if no gradients can
            be computed in it; or if ``work`` raised it.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return work(Watch(patience))  # as on Windows: no more protection than a function call has
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads, which a fork loses; here they are those of NumPy's BLAS
        stack = Path(folder, "stack")
        process = context.Process(target=_work, args=(work, patience, theirs, stack))
        process.start()
        theirs.close()
        try:
            answer, doing = _answer(process, ours, patience + GRACE)
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                raise UserError(_gone(process, doing, patience, stack.read_text() if stack.exists() else ""))
            assert isinstance(answer, _Result)
            result: T = answer.of
            return result
        finally:
            _end(process)


def _answer(process: BaseProcess, connection: Connection, patience: float) -> tuple[object, str]:
    """Return the answer of the process, and what it was doing.

    The answer is ``None`` if the process ended without one, or was silent for longer than ``patience``.
    """
    doing, heard = "the loop", time.monotonic()
    while time.monotonic() < heard + patience:
        alive = process.is_alive()  # asked first: what it sent before it died has then arrived
        if connection.poll(0.1):
            try:
                told = connection.recv()
            except (EOFError, OSError):
                process.join(1)
                break
            if not isinstance(told, str):
                return told, doing
            doing, heard = told or doing, time.monotonic()
        elif not alive:
            break
    return None, doing


def _gone(process: BaseProcess, doing: str, patience: float, told: str) -> str:
    """Return a sentence on how a process ended that gave no answer."""
    place = user_frames.of_stack(told)
    where = f" ({place})" if place else ""
    code = process.exitcode
    if code is None or told.startswith("Timeout"):
        return f"{doing} is not over after {patience:g} s{where}; let it come to its end, or give it more --patience"
    if code >= 0:
        return f"{doing} ended its process with exit code {code}, as os._exit does{where}; let it return instead"
    name = signal.Signals(-code).name
    if name in CRASHES:
        return f"{doing} crashed its process by {name}{where}; mend that first"
    return f"{doing} was killed by {name}{where}, which it, somebody else, or a lack of memory has sent"


def _end(process: BaseProcess) -> None:
    """End the process and all others of its session."""
    assert process.pid is not None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    process.close()


def _work(work: Callable[[Watch], object], patience: float, connection: Connection, stack: Path) -> None:
    """Run ``work`` and send its result; the target of the new process."""
    os.setsid()  # a session of its own, so that all that it starts can be ended with it
    with suppress(OSError):  # if streams are closed already
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)  # standard output is reserved for the answer
    sys.stdin, sys.stdout = open(os.devnull), sys.stderr  # noqa: SIM115  # open as long as the process lives
    without_gpus()
    gc.freeze()  # objects made before the user code need no garbage collection
    with stack.open("w") as file:
        faulthandler.disable()  # else enabling again would skip signals whose handlers a library has reset meanwhile
        faulthandler.enable(file, all_threads=False)
        answer: object
        try:
            _computes_gradients()
            answer = _Result(work(Watch(patience, connection, file)))
        except KeyboardInterrupt as error:  # Ctrl-C in a terminal goes to the parent process
            place = user_frames.of_exception(error)
            answer = UserError(
                f"KeyboardInterrupt is raised by the loop itself ({place}); let it raise another exception"
            )
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note(f"In a process of its own:\n{traceback.format_exc()}")
            answer = error
        connection.send(answer)
        signal.pause()  # until the parent ends it: threads that the code has left would block an exit


def _computes_gradients() -> None:
    """Raise unless autograd works in this fork: it fails if its threads, one for each GPU, stayed in the parent."""
    try:
        torch.ones(1, requires_grad=True).sum().backward()
    except RuntimeError:
        raise UserError(
            "this process has computed gradients where torch finds a GPU, and a fork of it cannot; "
            "check loops before that, or hide the GPU with CUDA_VISIBLE_DEVICES="
        ) from None
