"""Import of a training loop that is named on the command line, ready to be called."""

import inspect
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import fields
from importlib import import_module
from typing import Any

from gradparity.check.observe import Loop, in_a_line
from gradparity.errors import UserError
from gradparity.faults.stress import Cast

GIVEN = [field.name for field in fields(Cast)]
"""The names by which a loop asks for what it needs."""


def load(name: str) -> Loop:
    """Import the loop that ``name``, ``MODULE:FUNCTION``, stands for; look in the current folder first.

    Returns:
        A function that takes all of :data:`GIVEN` by name, and calls the loop with what it asks for.

    Raises:
        UserError: if there is no such module or function, or it cannot be called that way.
    """
    module_name, colon, function_name = name.partition(":")
    if not (module_name and colon and function_name) or "/" in name:
        raise UserError(f"{name!r} names no loop; write MODULE:FUNCTION, as in my_package.my_loop:train")
    sys.path.insert(0, os.getcwd())
    try:
        thing: Any = import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise UserError(f"{module_name} cannot be imported ({in_a_line(error)}); mend that first") from None
    for part in function_name.split("."):
        if not hasattr(thing, part):
            raise UserError(f"{module_name} has no {function_name}; name a function of it after the colon")
        thing = getattr(thing, part)
    if not callable(thing) or inspect.isclass(thing) or is_asynchronous(thing):
        raise UserError(f"{name} is no plain function; name one that trains a model when it is called")
    return called(thing, name)


def is_asynchronous(thing: Any) -> bool:
    """Return whether a call of ``thing`` only makes something that must be awaited."""
    return inspect.iscoroutinefunction(thing) or inspect.isasyncgenfunction(thing)


def called(loop: Loop, name: str) -> Loop:
    """Return a function that takes all of :data:`GIVEN` and calls ``loop``; a generator is run to its end.

    The loop is called by name with what it asks for. One that takes seven arguments under other names gets all of them
    in the order of :data:`GIVEN`.

    Raises:
        UserError: if it asks for something that is not in :data:`GIVEN`.
    """
    try:
        parameters = inspect.signature(loop).parameters.values()
    except ValueError:
        raise UserError(f"{name} does not tell its parameters; write a function that takes {listed(GIVEN)}") from None
    in_order = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    if len(in_order) == len(GIVEN) and any(p.name not in GIVEN for p in in_order):
        return _run_to_the_end(lambda **given: loop(*(given[key] for key in GIVEN)))  # under other names, in this order
    unknown = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown += [p.name for p in named if p.name not in GIVEN and p.default is p.empty]
    if unknown:
        raise UserError(f"{name} asks for {listed(unknown)}; what it can take, by name, is {listed(GIVEN)}")
    everything = any(p.kind == p.VAR_KEYWORD for p in parameters)
    wanted = GIVEN if everything else [p.name for p in named if p.name in GIVEN]
    if "model" not in wanted:
        raise UserError(f"{name} does not take the model; what it can take, by name, is {listed(GIVEN)}")

    return _run_to_the_end(lambda **given: loop(**{key: given[key] for key in wanted}))


def _run_to_the_end(loop: Loop) -> Loop:
    def call(**given: Any) -> None:
        with redirect_stdout(sys.stderr):
            result = loop(**given)
            if inspect.isgenerator(result):
                for _ in result:
                    pass
            if inspect.isawaitable(result) or inspect.isasyncgen(result):
                raise TypeError(f"it returned a {type(result).__name__}, which nobody awaits, so nothing was trained")

    return call


def listed(names: Sequence[str]) -> str:
    """Join names for a sentence.

    >>> listed(["model", "optimizer", "plan"])
    'model, optimizer and plan'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
