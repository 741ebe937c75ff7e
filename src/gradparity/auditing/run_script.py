"""Run somebody's script as ``python script.py arguments`` would, under a watch."""

import runpy
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gradparity.auditing.lines import raised
from gradparity.auditing.spawned import Enough
from gradparity.auditing.watch import Watch
from gradparity.errors import UserError

_OUTSIDE = {__file__, runpy.__file__, "<frozen runpy>"}
"""Files whose frames are around a script; its own traceback begins below them."""


class Terminated(BaseException):
    """Ends a script at SIGTERM."""


@dataclass(frozen=True)
class Ended:
    """The end of a script."""

    code: int
    """Its own exit code: 0 if it returned, 1 if it raised, 130 after Ctrl-C, 143 after SIGTERM."""
    words: str = ""
    """The exception that ended it, on one line."""


def run(target: str, arguments: Sequence[str], watch: Watch, module: bool = False) -> Ended:
    """Run a script or a module as the main program, and return how it ended.

    Args:
        target: a path, or with ``module`` the name of a module, as after ``python -m``.
        arguments: its own arguments.
        watch: watches from before its first import.
        module: run ``target`` as ``python -m`` does.

    Raises:
        UserError: if there is no such script.
    """
    path = Path(target)
    if not module and not path.is_file():
        raise UserError(f"there is no script {target}; name a file, or a module after -m")
    before_argv, before_path = sys.argv, list(sys.path)
    sys.argv = [target, *arguments]
    sys.path[0:0] = [str(Path.cwd()) if module else str(path.resolve().parent)]
    try:
        if module and find_spec(target.partition(".")[0]) is None:
            raise UserError(f"there is no module {target}; name one that python -m finds")
        with watch.watching():
            if module:
                runpy.run_module(target, run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(target, run_name="__main__")
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
    except Exception as error:
        watch.raised = raised(error)
        return _raised(error)
    finally:
        sys.argv, sys.path[:] = before_argv, before_path
    return Ended(0)


def _exited(end: SystemExit) -> Ended:
    if end.code is None or isinstance(end.code, int):
        return Ended(end.code or 0)
    print(end.code, file=sys.stderr)  # as Python does
    return Ended(1)


def _raised(error: BaseException) -> Ended:
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in _OUTSIDE:
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)
    return Ended(1, f"{type(error).__name__}: {' '.join(str(error).split())}")
