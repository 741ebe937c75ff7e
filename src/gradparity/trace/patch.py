"""Watching functions of PyTorch that have no hook: replaced while a block lasts, put back whatever happens in it."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Wrapper: TypeAlias = Callable[..., Any]
"""Called with the original function and then its arguments; returns what the original returned."""


@contextmanager
def wrapped(owner: Any, name: str, wrapper: Wrapper) -> Iterator[None]:
    """Let calls of ``owner.name``, a function of a module or a method of a class, go through ``wrapper``."""
    original = vars(owner)[name]

    @functools.wraps(original)
    def through(*args: Any, **kwargs: Any) -> Any:
        return wrapper(original, *args, **kwargs)

    setattr(owner, name, through)
    try:
        yield
    finally:
        setattr(owner, name, original)


def definer(kind: type, method: str) -> type:
    """The class from which ``kind`` has its ``method``."""
    return next(base for base in kind.__mro__ if method in vars(base))
