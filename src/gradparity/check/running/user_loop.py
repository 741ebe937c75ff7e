"""Import of the training loop that is named on the command line."""

import inspect
import os
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gradparity.check.running.observe import UserLoop
from gradparity.errors import UserError, in_a_line
from gradparity.faults.stress_scenario import EMA_DECAY, Cast
from gradparity.parity.likely_cause import listed

ARGUMENTS = [field.name for field in fields(Cast)]
"""The names of all arguments that a loop may take, but for an average."""

AVERAGES = ["ema", "average"]
"""The names under which a loop may take an average of the weights, as PyTorch makes it."""


@dataclass(frozen=True)
class LoadedLoop:
    """A user's loop, to be called with all of :data:`ARGUMENTS` by name."""

    call: UserLoop
    takes: frozenset[str]
    """The arguments that the loop itself takes."""

    @property
    def averages(self) -> list[str]:
        """Return the averages of the weights that it takes."""
        return [name for name in AVERAGES if name in self.takes]

    def __call__(self, **given: Any) -> None:
        """Call the loop with the arguments that it takes."""
        decay = get_ema_multi_avg_fn(EMA_DECAY)
        averages = {name: AveragedModel(given["model"], multi_avg_fn=decay) for name in self.averages}
        self.call(**given, **averages)


def load_loop(name: str) -> LoadedLoop:
    """Import the loop ``name``, ``MODULE:FUNCTION``, from the current folder or an installed package.

    Returns:
        A function that takes all of :data:`ARGUMENTS` by name, and calls the loop with those that it takes.

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
        # The error may be about a module that the user's own module imports.
        absent = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        advice = "check its name, and run this in the folder that holds it" if absent else "fix that first"
        raise UserError(f"{module_name} cannot be imported ({in_a_line(error)}); {advice}") from None
    for part in function_name.split("."):
        if not hasattr(thing, part):
            raise UserError(f"{module_name} has no {function_name}; write one of its functions after the colon")
        thing = getattr(thing, part)
    if not callable(thing) or inspect.isclass(thing) or _is_asynchronous(thing):
        raise UserError(f"{name} is not a plain function; name a function that trains a model when it is called")
    return call_by_name(thing, name)


def _is_asynchronous(thing: Any) -> bool:
    """Return whether a call of ``thing`` only returns an object to await."""
    return inspect.iscoroutinefunction(thing) or inspect.isasyncgenfunction(thing)


def call_by_name(loop: UserLoop, name: str) -> LoadedLoop:
    """Return a function that takes all of :data:`ARGUMENTS` and calls ``loop``; a generator is run to its end.

    The loop gets the arguments that it takes, by name. One that takes seven arguments, and knows none of them by a name
    of another, gets all of them in the order of :data:`ARGUMENTS`.

    Raises:
        UserError: if it takes an argument that is not in :data:`ARGUMENTS`.
    """
    try:
        parameters = inspect.signature(loop).parameters.values()
    except ValueError:
        raise UserError(f"{name} has no readable parameters; wrap it in a function of {listed(ARGUMENTS)}") from None
    in_order = [
        p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]
    theirs = [(p.name, key) for p, key in zip(in_order, ARGUMENTS, strict=False) if p.name != key]
    known = [*ARGUMENTS, *AVERAGES]
    if len(in_order) == len(ARGUMENTS) and theirs and not any(name in known for name, _ in theirs):
        in_this_order = _run_to_the_end(lambda **given: loop(*(given[key] for key in ARGUMENTS)))
        return LoadedLoop(in_this_order, frozenset(ARGUMENTS))
    unknown = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)]
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unknown += [p.name for p in named if p.name not in known and p.default is p.empty]
    if unknown:
        raise UserError(f"{name} takes {listed(unknown)}, but a loop gets only {listed([*ARGUMENTS, AVERAGES[0]])}")
    everything = any(p.kind == p.VAR_KEYWORD for p in parameters)
    other = [p.name for p in named if p.name in AVERAGES and p.default not in (p.empty, None)]  # such as a number
    wanted = ARGUMENTS if everything else [p.name for p in named if p.name in known and p.name not in other]
    if "model" not in wanted:
        raise UserError(f"{name} does not take the model, so it trains nothing; a loop gets {listed(ARGUMENTS)}")

    by_name = _run_to_the_end(lambda **given: loop(**{key: given[key] for key in wanted}))
    return LoadedLoop(by_name, frozenset(wanted))


def _run_to_the_end(loop: UserLoop) -> UserLoop:
    """Return ``loop``, which prints to stderr until it has once come to its end: it runs several times."""
    ended = False

    def call(**given: Any) -> None:
        nonlocal ended
        with open(os.devnull, "w") if ended else nullcontext(sys.stderr) as out, redirect_stdout(out):
            result = loop(**given)
            if inspect.isgenerator(result):
                for _ in result:
                    pass
            if inspect.isawaitable(result) or inspect.isasyncgen(result):
                raise TypeError(f"it returned a {type(result).__name__} that is never awaited, so nothing was trained")
        ended = True

    return call
