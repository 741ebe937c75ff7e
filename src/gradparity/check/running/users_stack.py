"""The user's functions that are running, from the innermost out, and the numbers that are written in them."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from types import CodeType, FrameType

from gradparity.auditing.watching.user_lines import of_the_user
from gradparity.check.running import user_loop

_MOST_NUMBERS = 40


def users_frames() -> Iterator[FrameType]:
    """Yield the frames of the user's functions, up to the call of the loop."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != user_loop.__file__:
        if of_the_user(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


def numbers_in(frame: FrameType) -> list[float]:
    """Return positive numbers up to one in a function's variables, in their attributes, and in its code and theirs."""
    found = dict.fromkeys(_numbers(frame.f_code.co_consts))
    for value in list(frame.f_locals.values()):
        found |= dict.fromkeys(_numbers(value))
        with suppress(Exception):  # of objects that answer in their own way
            found |= dict.fromkeys(_of_an_object(value))
    return list(found)[:_MOST_NUMBERS]


def _of_an_object(value: object) -> Iterator[float]:
    """Yield the numbers in the attributes and methods of an object of a user's class."""
    if of_the_user(getattr(sys.modules.get(type(value).__module__), "__file__", None) or "<string>"):
        yield from _numbers(list(vars(value).values()) if hasattr(value, "__dict__") else ())
        methods = [getattr(one, "__code__", None) for one in vars(type(value)).values()]
        yield from _numbers([code.co_consts for code in methods if code is not None])


def _numbers(value: object, deeper: int = 3) -> Iterator[float]:
    if isinstance(value, float) and 0 < value <= 1:
        yield value
    elif isinstance(value, CodeType) and deeper:
        yield from _numbers(value.co_consts, deeper - 1)
    elif isinstance(value, dict) and deeper:
        yield from _numbers(list(value.values()), deeper - 1)
    elif isinstance(value, list | tuple) and deeper and len(value) <= _MOST_NUMBERS:
        for one in value:
            yield from _numbers(one, deeper - 1)
