"""The user's line that is running, found on the call stack."""

import linecache
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType

import gradparity
from gradparity.processes.user_frames import LIBRARIES

_PYTHON_AND_OURS = (str(Path(sysconfig.get_path("stdlib"), "runpy")), str(Path(gradparity.__file__).parent))


@dataclass(frozen=True)
class Line:
    """A line of the user's code."""

    file: str
    number: int
    function: str = ""

    def __str__(self) -> str:
        """Return file and line, as editors open them.

        >>> print(Line("/home/me/train.py", 12))
        train.py:12
        """
        return f"{Path(self.file).name}:{self.number}"

    @property
    def source(self) -> str:
        """Return the text of the line; empty if the file cannot be read."""
        linecache.checkcache(self.file)
        return linecache.getline(self.file, self.number).strip()


NOWHERE = Line("?", 0)


@dataclass(frozen=True)
class Raised:
    """The exception that ended a loop."""

    kind: str
    message: str
    line: Line


def here() -> Line:
    """Return the innermost line on the stack that is the user's, and in no library.

    Code of an installed package counts if nothing else is there, such as a script run with ``-m``.
    """
    frame: FrameType | None = sys._getframe(1)
    installed: FrameType | None = None
    while frame is not None:
        file = frame.f_code.co_filename
        if not _of_a_library(file):
            return Line(file, frame.f_lineno, frame.f_code.co_name)
        if installed is None and not _of_torch_or_ours(file):
            installed = frame
        frame = frame.f_back
    if installed is None:
        return NOWHERE
    return Line(installed.f_code.co_filename, installed.f_lineno, installed.f_code.co_name)


def raised(error: BaseException) -> Raised:
    """Return an exception with the innermost line of the user's that it passed through."""
    line, trace = NOWHERE, error.__traceback__
    while trace is not None:
        if not _of_a_library(trace.tb_frame.f_code.co_filename):
            line = Line(trace.tb_frame.f_code.co_filename, trace.tb_lineno, trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return Raised(type(error).__name__, " ".join(str(error).split()), line)


@cache
def _of_a_library(file: str) -> bool:
    return file.startswith(("<frozen", "<string", *LIBRARIES))


def of_the_user(file: str) -> bool:
    """Return whether a file is the user's, and in no library."""
    return not _of_a_library(file)


@cache
def _of_torch_or_ours(file: str) -> bool:
    return file.startswith(("<", *_PYTHON_AND_OURS)) or "/torch/" in file
