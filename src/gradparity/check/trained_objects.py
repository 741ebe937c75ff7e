"""Checks of a loop's inputs: it must train the model and the optimizer that it was given, not others."""

import multiprocessing
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import thread as pools
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from gradparity.faults import stress
from gradparity.faults.stress import Cast
from gradparity.processes import user_frames


class Given:
    """The stress scenario, and a record of it from before the loop was given it."""

    def build(self, precision: str) -> Cast:
        """Build the scenario and record it; for :func:`gradparity.check.observe.observe`."""
        self.cast = stress.build(precision)
        self.parameters = dict(self.cast.model.named_parameters(remove_duplicate=False))
        self.hooks = hooks(self.cast)
        self.others: list[Optimizer] = []
        return self.cast

    @contextmanager
    def watching_others(self) -> Iterator[None]:
        """Record all other optimizers that make a step in the block."""

        def notice(optimizer: Optimizer, *_: Any) -> None:
            if optimizer is not self.cast.optimizer and not any(optimizer is other for other in self.others):
                self.others.append(optimizer)

        handle = register_optimizer_step_post_hook(notice)
        try:
            yield
        finally:
            handle.remove()

    def of_another(self) -> str:
        """Return a predicate that says which other optimizer made steps, and on what; empty if none did."""
        for other in self.others:
            kind = type(other).__name__
            if held(other) & {id(p) for p in self.parameters.values()}:
                return f"trains the model with another optimizer ({kind}) than the one that it was given"
            return f"trains something else than the model that it was given, a copy for one, with another {kind}"
        return ""

    def replaced(self) -> str:
        """Return a predicate on a parameter that is replaced or new, and unknown to the optimizer; empty if none is."""
        ours = held(self.cast.optimizer)
        now = dict(self.cast.model.named_parameters(remove_duplicate=False))
        if not ours & {id(p) for p in now.values()}:
            return "leaves an optimizer that holds none of the model's parameters"
        for name, p in now.items():
            if p is not self.parameters.get(name) and id(p) not in ours:
                what = "puts another parameter in the place of" if name in self.parameters else "adds"
                return f"{what} {name}, of which the optimizer does not know"
        return ""

    def hooks_left(self) -> list[str]:
        """Return the modules, parameters and optimizers that have more hooks now than before."""
        return [what for what, number in hooks(self.cast).items() if number > self.hooks.get(what, 0)]


def held(optimizer: Optimizer) -> set[int]:
    """Return the identities of the parameters that an optimizer trains."""
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def hooks(cast: Cast) -> dict[str, int]:
    """Return the number of hooks on each module, on each parameter and on the optimizer, by name."""
    things: dict[str, object] = {f"the module {name}": m for name, m in cast.model.named_modules() if name}
    things |= {f"the parameter {name}": p for name, p in cast.model.named_parameters()}
    things |= {"the model": cast.model, "the optimizer": cast.optimizer}
    return {name: sum(map(len, dictionaries(thing))) for name, thing in things.items()}


def dictionaries(thing: object) -> Iterator[dict[int, object]]:
    """Yield the dictionaries in which torch keeps the hooks of a module, a parameter or an optimizer."""
    names = [name for name in dir(thing) if name.startswith("_") and name.endswith("_hooks")]
    for found in (getattr(thing, name) for name in names):
        if isinstance(found, dict):
            yield found


def running(before: set[threading.Thread]) -> str:
    """Return a thread that is not in ``before``, or a process, that still runs; empty if none matters.

    A library's threads may still run, if they do not keep the process from ending.
    """
    frames = sys._current_frames()
    for thread in threading.enumerate():
        frame = frames.get(thread.ident or 0)
        files, place = [], ""
        while frame is not None:
            code = frame.f_code
            files.append(code.co_filename)
            place = place or user_frames.innermost([(code.co_filename, frame.f_lineno, code.co_name)])
            frame = frame.f_back
        if thread not in before and (place or not (thread.daemon or pools.__file__ in files)):
            return f"the thread {thread.name}" + (f" ({place})" if place else "")
    processes = [process for process in multiprocessing.active_children() if not process.daemon]
    return f"the process {processes[0].name}" if processes else ""
