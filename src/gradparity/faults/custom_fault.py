"""One function of the reference with different lines, for a loop that is not in the dictionary."""

import inspect
from collections.abc import Callable
from typing import Any


def rewritten(function: Callable[..., Any], right: str, wrong: str, **known: object) -> Callable[..., Any]:
    """Recompile ``function`` with ``wrong`` in the place of ``right``, and without its comment lines.

    ``known`` are the names that ``wrong`` uses and the module of ``function`` does not have.

    Raises:
        ValueError: if the source of ``function`` does not contain ``right`` exactly once, for example because only one
            of the two was changed.
    """
    lines = inspect.getsource(function).splitlines(keepends=True)
    source = "".join(line for line in lines if not line.lstrip().startswith("#"))
    if source.count(right) != 1:
        raise ValueError(f"{function.__name__} holds these lines {source.count(right)} times, not once:\n{right}")
    names = {**function.__globals__, **known}
    exec(compile(source.replace(right, wrong), f"<{function.__name__} with other lines>", "exec"), names)
    changed: Callable[..., Any] = names[function.__name__]
    return changed
