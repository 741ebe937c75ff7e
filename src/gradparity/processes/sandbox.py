"""Somebody's code, run in a process of its own, which it may hang, crash, exit, or leave in any state.

The process is a fork of this one: nothing is imported twice, and what runs there need not be importable. It sees no
GPU, and gradients must not have been computed here before where there is one
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
"""Seconds that a loop may take unless something else is said; the reference takes a fraction of one."""

GRACE = 10.0
"""Seconds after which a process that its own alarm should have ended is ended from here; it may have undone that.

As long may it be busy between two runs of somebody's code, which takes a fraction of a second.
"""

CRASHES = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")


@dataclass(frozen=True)
class _Result:
    of: Any


@dataclass(frozen=True)
class Watch:
    """Held by a process that runs somebody's code: how long that may take, and who is told of it."""

    patience: float
    """Seconds."""
    connection: Connection | None = None
    stack: IO[str] | None = None
    """Where ``faulthandler`` writes what the process was doing when it ended."""

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """Around somebody's code: unless ``what`` is over in time, the process is, and the other one says so."""
        if self.connection is None or self.stack is None:
            yield
            return
        process = os.getpid()
        self.connection.send(what)
        # A thread in C, which needs neither the interpreter's lock nor the main thread; it also ends an orphan.
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
    """What ``work`` returns, in a process of its own; that, and all that it has started, is gone afterwards.

    Args:
        work: runs somebody's code under its watch only. What it returns is pickled.
        patience: seconds that each such run may take.

    Raises:
        UserError: if there is no result, because the process crashed, exited, or had to be ended; if no gradients can
            be computed in it; or as ``work`` did.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return work(Watch(patience))  # as on Windows: no better protected than any function call
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, which a fork does not have: here they are those of NumPy's BLAS
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
    """What the process sends at last, or ``None`` if nothing is heard for longer than ``patience``; and what it did."""
    doing, heard = "the loop", time.monotonic()
    while time.monotonic() < heard + patience:
        alive = process.is_alive()  # asked first: what it sent before it died is there now
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
    """How a process ended that gave no answer."""
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
    """It, and all that belongs to its session."""
    assert process.pid is not None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    process.close()


def _work(work: Callable[[Watch], object], patience: float, connection: Connection, stack: Path) -> None:
    """What runs in the new process."""
    os.setsid()  # a session of its own, so that all that it starts can be ended with it
    with suppress(OSError):  # of streams that are closed already
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)  # standard output is for the answer
    sys.stdin, sys.stdout = open(os.devnull), sys.stderr  # noqa: SIM115  # open as long as the process lives
    without_gpus()
    gc.freeze()  # what is here already is nothing that the code has made, and need not be looked through again
    with stack.open("w") as file:
        faulthandler.disable()  # enabled already, it would leave signals alone that a library has reset meanwhile
        faulthandler.enable(file, all_threads=False)
        answer: object
        try:
            _computes_gradients()
            answer = _Result(work(Watch(patience, connection, file)))
        except KeyboardInterrupt as error:  # one from a terminal would have come to the other process
            place = user_frames.of_exception(error)
            answer = UserError(
                f"KeyboardInterrupt is raised by the loop itself ({place}); let it raise another exception"
            )
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note(f"In a process of its own:\n{traceback.format_exc()}")
            answer = error
        connection.send(answer)
        signal.pause()  # until it is ended from outside: threads that the code has left would not let it go


def _computes_gradients() -> None:
    """Raise unless autograd works in this fork: it does not where its threads, one for each GPU, were left behind."""
    try:
        torch.ones(1, requires_grad=True).sum().backward()
    except RuntimeError:
        raise UserError(
            "this process has computed gradients where torch finds a GPU, and a fork of it cannot; "
            "check loops before that, or hide the GPU with CUDA_VISIBLE_DEVICES="
        ) from None
