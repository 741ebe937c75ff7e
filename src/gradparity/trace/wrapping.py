"""Replacements for functions of PyTorch that have no hook, so that calls of them can be watched.

A function is replaced once for all its watchers. When the last watcher leaves, the original is restored.

The replacement is transparent. It passes its arguments to the original and returns the result of the original. It has
the attributes and the signature of the original. It can be pickled by value, as cloudpickle does with a class of
``__main__``, because it holds only the original and a number. torch.compile may trace through it.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from threading import RLock
from typing import Any, TypeAlias

import torch

Wrapper: TypeAlias = Callable[..., Any]
"""Called with the original function and then its arguments; returns the result of the original."""


@dataclass
class _Replacement:
    """A function that replaces another one."""

    owner: Any
    name: str
    original: Callable[..., Any]
    inherited: bool
    """True if the owner inherits the function from a base class: deleting the replacement restores it."""
    function: Callable[..., Any]
    watchers: list[Wrapper] = field(default_factory=list)
    """The wrappers to call; the latest is the outermost."""

    @property
    def in_place(self) -> bool:
        """Return whether the replacement is still in place, with no other patch over it."""
        return vars(self.owner).get(self.name) is self.function


_REPLACEMENTS: dict[int, _Replacement] = {}
_NUMBERS = count()
_LOCK = RLock()


@contextmanager
def wrapped(owner: Any, name: str, wrapper: Wrapper) -> Iterator[None]:
    """Send calls of ``owner.name``, a function of a module or a method of a class, through ``wrapper``.

    Blocks may overlap and may end in any order.
    """
    with _LOCK:
        number = _replaced(owner, name)
        replacement = _REPLACEMENTS[number]
        replacement.watchers.append(wrapper)
    try:
        yield
    finally:
        with _LOCK:
            replacement.watchers.remove(wrapper)
            if not replacement.watchers:
                _put_back(number)


def _replaced(owner: Any, name: str) -> int:
    """Return the number of the replacement in place; make one if there is none."""
    for number, known in _REPLACEMENTS.items():
        if known.owner is owner and known.name == name and known.in_place:
            return number
    inherited = name not in vars(owner)
    original = getattr(owner, name) if inherited else vars(owner)[name]
    number = next(_NUMBERS)
    _REPLACEMENTS[number] = _Replacement(owner, name, original, inherited, _through(original, number))
    setattr(owner, name, _REPLACEMENTS[number].function)
    return number


def _put_back(number: int) -> None:
    replacement = _REPLACEMENTS.pop(number)
    if not replacement.in_place:
        return  # another patch over ours must stay; below it, ours passes every call on
    if replacement.inherited:
        delattr(replacement.owner, replacement.name)
    else:
        setattr(replacement.owner, replacement.name, replacement.original)


def _through(original: Callable[..., Any], number: int) -> Callable[..., Any]:
    """Return a function that looks like ``original`` and calls it through its watchers."""

    @functools.wraps(original)
    def through(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() and _in_one_graph():
            return original(*args, **kwargs)  # watching the call would break the graph, which is forbidden
        return call(number, original, args, kwargs)

    del through.__wrapped__  # inspect.unwrap then finds the function that the original wraps, if any
    through.__dict__.update(getattr(original, "__dict__", {}))
    with suppress(ValueError, TypeError):  # not every function written in C has a signature
        through.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]  # read by inspect
    return through


@torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's own has no annotations
def call(number: int, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call ``original`` through the current watchers of replacement ``number``, if any."""
    function = original
    for wrapper in tuple(_REPLACEMENTS[number].watchers) if number in _REPLACEMENTS else ():
        function = functools.partial(wrapper, function)
    return function(*args, **kwargs)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch's own has no annotations
def _in_one_graph() -> bool:
    """Return whether torch.compile, which calls this while it traces, traces with ``fullgraph=True``."""
    from torch._dynamo.symbolic_convert import InstructionTranslator

    translator = InstructionTranslator.current_tx()
    return bool(getattr(translator, "one_graph", False) or getattr(translator, "error_on_graph_break", False))


def definer(kind: type, method: str) -> type:
    """Return the class that defines ``method`` for ``kind``: ``kind`` itself or a base class."""
    return next(base for base in kind.__mro__ if method in vars(base))
