"""The line of user code where something happened, from an exception or from a stack that ``faulthandler`` wrote."""

import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import gradparity

LIBRARIES = tuple({*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), str(Path(gradparity.__file__).parent)})
"""Folders with code that is not the user's."""

_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
"""A frame as ``faulthandler`` writes it."""


class Frame(NamedTuple):
    """A line of code that was running.

    >>> str(Frame("/home/me/train.py", 12, "step"))
    'train.py, line 12 in step'
    """

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        """Return the frame for a sentence."""
        return f"{Path(self.file).name}, line {self.line} in {self.function}"


def frames_of_exception(error: BaseException) -> list[Frame]:
    """Return the frames that ``error`` passed through, the innermost first."""
    return [Frame(f.filename, f.lineno or 0, f.name) for f in reversed(traceback.extract_tb(error.__traceback__))]


def frames_of_dump(dump: str) -> list[Frame]:
    """Return the frames of the main thread in the output of ``faulthandler``, the innermost first."""
    return [Frame(file, int(line), name) for file, line, name in _FRAME.findall(dump.rpartition("Thread ")[2])]


def innermost(frames: Iterable[Frame], libraries: Iterable[str] = LIBRARIES) -> Frame | None:
    """Return the first of the frames that is not in a library.

    >>> innermost([Frame("<string>", 1, "f"), Frame("/home/me/train.py", 12, "step")]).line
    12
    """
    outside = ("<", *libraries)
    return next((frame for frame in frames if not frame.file.startswith(outside)), None)


def in_brackets(frame: Frame | None) -> str:
    """Return the frame as a remark at the end of a clause; empty if there is none."""
    return f" ({frame})" if frame else ""
