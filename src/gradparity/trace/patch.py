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
    its_own = name in vars(owner)
    original = vars(owner)[name] if its_own else getattr(owner, name)
    lasts = True

    @functools.wraps(original)
    def through(*args: Any, **kwargs: Any) -> Any:
        # Whoever has taken it in the block may call it, or even put it back in its place, much later.
        return wrapper(original, *args, **kwargs) if lasts else original(*args, **kwargs)

    setattr(owner, name, through)
    try:
        yield
    finally:
        lasts = False
        if vars(owner).get(name) is through:  # else somebody has put something over it, which is not ours to remove
            if its_own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)


def definer(kind: type, method: str) -> type:
    """The class from which ``kind`` has its ``method``."""
    return next(base for base in kind.__mro__ if method in vars(base))
