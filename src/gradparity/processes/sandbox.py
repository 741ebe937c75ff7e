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
from gradparity.processes.determinism import hide_gpus
from gradparity.processes.user_frames import frames_of_dump, frames_of_exception, in_brackets, innermost

_T = TypeVar("_T")

PATIENCE = 60.0
"""Seconds that a loop may take by default; the reference takes a fraction of a second."""

GRACE = 10.0
"""Extra seconds after which the parent ends a process that its own alarm should have ended.

User code may have undone that alarm. The process may also be busy for this long between two runs of user code, which
takes a fraction of a second.
"""

_CRASHES = ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV")


@dataclass(frozen=True)
class _Result:
    value: Any


@dataclass(frozen=True)
class _Dumps:
    """The files to which ``faulthandler`` writes the stack of the process when it ends."""

    crash: Path
    late: Path
    """Written if the process is ended because its time is up."""


@dataclass(frozen=True)
class TimeLimit:
    """The time limit on user code in a process, and the connection over which the process reports."""

    seconds: float
    connection: Connection | None = None
    late: IO[str] | None = None
    """The file for the stack, if the time is up."""

    @contextmanager
    def on(self, subject: str) -> Iterator[None]:
        """Limit the time of user code in the block.

        If ``subject`` does not finish in time, the process ends, and its parent reports that.
        """
        if self.connection is None or self.late is None:
            yield
            return
        process = os.getpid()
        self.connection.send(subject)
        # A thread in C: it needs neither the GIL nor the main thread, and it also ends an orphan.
        faulthandler.dump_traceback_later(self.seconds, exit=True, file=self.late)
        try:
            yield
        finally:
            if os.getpid() != process:
                forked = f"{subject} forks, and both processes return from it; end one of them with os._exit"
                self.connection.send(UserError(forked))
                os._exit(0)
            faulthandler.cancel_dump_traceback_later()
            self.connection.send("")


def run_in_subprocess(work: Callable[[TimeLimit], _T], patience: float) -> _T:
    """Call ``work`` in a separate process and return its result; end that process and all that it has started.

    Args:
        work: runs user code only under the time limit that it gets. Its result is pickled.
        patience: seconds that each such run may take.

    Raises:
        UserError: if there is no result, because the process crashed, exited, or had to be ended; if no gradients can
            be computed in it; or if ``work`` raised it.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        return work(TimeLimit(patience))  # as on Windows: no more protection than a function call has
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads, which a fork loses; here they are those of NumPy's BLAS
        dumps = _Dumps(Path(folder, "crash"), Path(folder, "late"))
        process = context.Process(target=_work, args=(work, patience, theirs, dumps))
        process.start()
        theirs.close()
        try:
            answer, subject = _wait_for_answer(process, ours, patience + GRACE)
            if isinstance(answer, BaseException):
                raise answer
            if answer is None:
                raise UserError(_no_answer(process, subject, patience, dumps))
            assert isinstance(answer, _Result)
            result: _T = answer.value
            return result
        finally:
            _end(process)


def _wait_for_answer(process: BaseProcess, connection: Connection, patience: float) -> tuple[object, str]:
    """Return the answer of the process, and the name of the user code that ran last.

    The answer is ``None`` if the process ended without one, or was silent for longer than ``patience``.
    """
    subject, heard = "the loop", time.monotonic()
    while time.monotonic() < heard + patience:
        alive = process.is_alive()  # asked first: a message that it sent before it died has then arrived
        if connection.poll(0.1):
            try:
                message = connection.recv()
            except (EOFError, OSError):
                process.join(1)
                break
            if not isinstance(message, str):
                return message, subject
            subject, heard = message or subject, time.monotonic()
        elif not alive:
            break
    return None, subject


def _no_answer(process: BaseProcess, subject: str, patience: float, dumps: _Dumps) -> str:
    """Return a sentence on the end of a process that gave no answer."""
    late, crash = (path.read_text() if path.exists() else "" for path in (dumps.late, dumps.crash))
    where = in_brackets(innermost(frames_of_dump(late or crash)))
    code = process.exitcode
    if code is None or late:
        return f"{subject} has not finished after {patience:g} s{where}; make it return, or raise --patience"
    if code >= 0:
        return f"{subject} ended its process with exit code {code}, as os._exit does{where}; make it return instead"
    name = signal.Signals(-code).name
    if name in _CRASHES:
        return f"{subject} crashed its process with {name}{where}; fix that first"
    return f"{subject} was killed by {name}{where}: sent by itself, by another process, or for lack of memory"


def _end(process: BaseProcess) -> None:
    """End the process and all others of its session."""
    assert process.pid is not None
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()
    process.close()


def _work(work: Callable[[TimeLimit], object], patience: float, connection: Connection, dumps: _Dumps) -> None:
    """Run ``work`` and send its result; the target of the new process."""
    os.setsid()  # a session of its own, so that all that it starts can be ended with it
    with suppress(OSError):  # if streams are closed already
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)  # standard output is reserved for the answer
    sys.stdin, sys.stdout = open(os.devnull), sys.stderr  # noqa: SIM115  # open as long as the process lives
    hide_gpus()
    gc.freeze()  # objects made before the user code need no garbage collection
    with dumps.crash.open("w") as crash, dumps.late.open("w") as late:
        faulthandler.disable()  # else enabling again would skip signals whose handlers a library has reset meanwhile
        faulthandler.enable(crash, all_threads=False)
        answer: object
        try:
            _require_autograd()
            answer = _Result(work(TimeLimit(patience, connection, late)))
        except KeyboardInterrupt as error:  # Ctrl-C in a terminal goes to the parent process
            where = in_brackets(innermost(frames_of_exception(error)))
            answer = UserError(f"the loop itself raises KeyboardInterrupt{where}; raise a different exception")
        except Exception as error:
            if not isinstance(error, UserError):
                error.add_note(f"In the separate process:\n{traceback.format_exc()}")
            answer = error
        connection.send(answer)
        signal.pause()  # until the parent ends it: threads that the code has left would block an exit


def _require_autograd() -> None:
    """Raise unless autograd works in this fork: it fails if its threads, one for each GPU, stayed in the parent."""
    try:
        torch.ones(1, requires_grad=True).sum().backward()
    except RuntimeError:
        raise UserError(
            "this process has already computed gradients and torch finds a GPU, so a fork of it cannot compute any; "
            "check loops first, or hide the GPU with CUDA_VISIBLE_DEVICES="
        ) from None
