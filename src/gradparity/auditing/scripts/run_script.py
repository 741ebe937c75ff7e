"""Run somebody's script as ``python script.py arguments`` would, under a watch."""

import os
import runpy
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from gradparity.auditing.scripts.spawned_processes import Enough
from gradparity.auditing.scripts.sudden_end import Terminated, before_the_end
from gradparity.auditing.watching.user_lines import raised
from gradparity.auditing.watching.watch import Watch
from gradparity.errors import UserError

_OUTSIDE = {__file__, runpy.__file__, "<frozen runpy>"}
"""Files whose frames are around a script; its own traceback begins below them."""
_ENDED: list[object] = []
"""The variables of scripts that have ended: as in Python, they live until the process ends.

A process group that goes earlier waits for its threads, and one of them may be waiting for the caller.
"""


@dataclass(frozen=True)
class Ended:
    """The end of a script."""

    code: int
    """Its own exit code: 0 if it returned, 1 if it raised, 130 after Ctrl-C, 143 after SIGTERM."""
    words: str = ""
    """The exception that ended it, on one line."""


def run(
    target: str, arguments: Sequence[str], watch: Watch, module: bool = False,
    exiting: Callable[[Ended], int] = lambda ended: ended.code,
) -> Ended:  # fmt: skip
    """Run a script or a module as the main program, and return how it ended.

    Args:
        target: a path, or with ``module`` the name of a module, as after ``python -m``.
        arguments: its own arguments.
        watch: watches from before its first import.
        module: run ``target`` as ``python -m`` does.
        exiting: called if the script calls ``os._exit``, after which nothing more runs; returns the code to exit with.

    Raises:
        UserError: if there is no such script, or it is no Python.
    """
    path = Path(target)
    if not module and not os.path.isfile(target):  # unlike Path.is_file, it does not raise for a name too long
        there = "is a folder" if os.path.isdir(target) else "is no file" if os.path.exists(target) else "does not exist"
        raise UserError(f"the script {target} {there}; name a file, or a module after -m")
    before = set(threading.enumerate())
    with _as_main(target, arguments, Path.cwd() if module else path.resolve().parent):
        if module and find_spec(target.partition(".")[0]) is None:
            raise UserError(f"there is no module {target}; name one that python -m finds")
        try:
            with before_the_end(lambda code, words: exiting(Ended(code, words))), watch.watching():
                if module:
                    _ENDED.append(runpy.run_module(target, run_name="__main__", alter_sys=True))
                else:
                    _run_file(path.absolute())
                _wait_for_threads(before)
        except Enough:
            return Ended(0, "stopped once enough steps were watched")
        except SystemExit as end:
            return _exited(end)
        except KeyboardInterrupt:
            return Ended(130, "interrupted")
        except Terminated:
            return Ended(143, "terminated")
        except UserError:
            raise
        except BaseException as error:
            if _never_began(error):
                raise UserError(_refusal(error, target)) from None
            watch.raised = raised(error)
            return _raised(error)
    return Ended(0)


@contextmanager
def _as_main(target: str, arguments: Sequence[str], folder: Path) -> Iterator[None]:
    before = sys.argv, list(sys.path), sys.modules.get("__main__")
    sys.argv = [target, *arguments]
    sys.path[0:0] = [str(folder)]
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before[0], before[1]
        if before[2] is not None:
            sys.modules["__main__"] = before[2]


def _run_file(path: Path) -> None:
    """Run a file as Python does: ``__file__`` is absolute, so that its lines are found after ``os.chdir``."""
    main = ModuleType("__main__")
    main.__dict__.update(__file__=str(path), __builtins__=__builtins__, __cached__=None)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UserError(f"the script {path} cannot be read ({error.strerror}); make it readable") from None
    code = compile(source, str(path), "exec", dont_inherit=True)
    sys.modules["__main__"] = main
    _ENDED.append(main)
    exec(code, main.__dict__)


def _wait_for_threads(before: Collection[threading.Thread]) -> None:
    """Wait for the threads that the script has started, as Python does before it ends; those of pools are let go first.

    Args:
        before: the threads that ran before the script began.
    """
    own = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    with _ending(set(own)):
        for thread in own:
            if thread is not threading.current_thread():
                thread.join()


@contextmanager
def _ending(threads: Collection[threading.Thread]) -> Iterator[None]:
    """Have those of ``threads`` that belong to a pool end once its work is done, where the script has left it open.

    Python does the same for all pools before it waits for threads, in the two functions ``_python_exit`` of
    ``concurrent.futures``. Without it, such a thread waits for more work forever.
    """
    of_threads: Any = sys.modules.get("concurrent.futures.thread")
    of_processes: Any = sys.modules.get("concurrent.futures.process")
    try:
        if of_threads is not None:
            of_threads._shutdown = True
            for thread, work in list(of_threads._threads_queues.items()):
                if thread in threads:
                    work.put(None)
        if of_processes is not None:
            of_processes._global_shutdown = True
            for thread, wakeup in list(of_processes._threads_wakeups.items()):
                if thread in threads:
                    wakeup.wakeup()
        yield
    finally:
        if of_threads is not None:
            of_threads._shutdown = False
        if of_processes is not None:
            of_processes._global_shutdown = False


def _never_began(error: BaseException) -> bool:
    """Return whether Python has refused the script itself: no line of it, and of no library, has run."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return isinstance(error, (SyntaxError, ImportError)) and all(
        file in _OUTSIDE or file.startswith("<frozen") for file in files
    )


def _refusal(error: BaseException, target: str) -> str:
    if not isinstance(error, SyntaxError):
        return f"{target} cannot be run: {error}; name a module that python -m runs"
    if not error.lineno:
        return f"{target}: {error.msg}; Python cannot read the script, so name a file of Python code"
    return f"{target}, line {error.lineno}: {error.msg}; Python cannot read the script, so fix that line"


def _exited(end: SystemExit) -> Ended:
    if end.code is None or isinstance(end.code, int):
        return Ended(end.code or 0)
    with suppress(OSError, ValueError, AttributeError):  # it may have closed its standard error
        print(end.code, file=sys.stderr)  # as Python does
    return Ended(1)


def _raised(error: BaseException) -> Ended:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _OUTSIDE:
        trace = trace.tb_next
    with suppress(OSError, ValueError, AttributeError):
        traceback.print_exception(type(error), error, trace)
    return Ended(1, f"{type(error).__name__}: {' '.join(str(error).split())}")
