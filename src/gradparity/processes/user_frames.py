"""Where in a user's code something happened, when all of a stack is told by an exception or by ``faulthandler``."""

import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path

import gradparity

LIBRARIES = tuple({*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), str(Path(gradparity.__file__).parent)})
"""Folders with code that is not the user's."""

FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
"""As ``faulthandler`` writes it."""


def of_exception(error: BaseException) -> str:
    """Where ``error`` was raised, as far as the user's code is concerned; empty if that had no part in it."""
    frames = traceback.extract_tb(error.__traceback__)
    return innermost((f.filename, f.lineno, f.name) for f in reversed(frames))


def of_stack(told: str) -> str:
    """As :func:`of_exception`, of the main thread in what ``faulthandler`` has written."""
    return innermost(FRAME.findall(told.rpartition("Thread ")[2]))


def innermost(frames: Iterable[tuple[str, object, str]]) -> str:
    """The first of the frames that is no library's.

    >>> innermost([("<string>", 1, "f"), ("/home/me/train.py", 12, "step")])
    'train.py, line 12 in step'
    """
    for file, line, function in frames:
        if is_theirs(file):
            return f"{Path(file).name}, line {line} in {function}"
    return ""


def is_theirs(file: str) -> bool:
    """Whether the user has written ``file``."""
    return not file.startswith(("<", *LIBRARIES))
