"""The line of user code where something happened, from the stack of an exception or of ``faulthandler``."""

import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

import gradparity

LIBRARIES = tuple({*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), str(Path(gradparity.__file__).parent)})
"""Folders with code that is not the user's."""

FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
"""A frame as ``faulthandler`` writes it."""


def of_exception(error: BaseException) -> str:
    """Return where in the user's code ``error`` was raised; empty if that code had no part in it."""
    frames = traceback.extract_tb(error.__traceback__)
    return innermost((f.filename, f.lineno, f.name) for f in reversed(frames))


def of_stack(told: str) -> str:
    """Return what :func:`of_exception` does, for the main thread in the output of ``faulthandler``."""
    return innermost(FRAME.findall(told.rpartition("Thread ")[2]))


def innermost(frames: Iterable[tuple[str, object, str]]) -> str:
    """Return the first of the frames that is not in a library.

    >>> innermost([("<string>", 1, "f"), ("/home/me/train.py", 12, "step")])
    'train.py, line 12 in step'
    """
    for file, line, function in frames:
        if is_theirs(file):
            return f"{Path(file).name}, line {line} in {function}"
    return ""


def is_theirs(file: str) -> bool:
    """Return whether the user has written ``file``."""
    return not file.startswith(("<", *LIBRARIES))
