"""Checks of a loop's inputs: it must train the model and the optimizer that it was given, not others."""

import multiprocessing
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import thread as pools
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from gradparity.auditing.watching.user_lines import of_the_user
from gradparity.check.intended.intended_reference import noting
from gradparity.check.intended.own_draws import DrawsWatcher
from gradparity.check.intended.own_optimizers import OwnOptimizer, own_optimizer, with_its_steps
from gradparity.check.intended.own_scaler import OwnScaler, own_scaler
from gradparity.check.intended.own_updates import OwnUpdates, WeightsWatcher
from gradparity.check.running import user_loop
from gradparity.faults import stress_scenario
from gradparity.faults.stress_scenario import Cast
from gradparity.parity.likely_cause import listed
from gradparity.processes.user_frames import Frame, in_brackets, innermost

_SEARCHES = (
    "trains the model with {}, which calls its closure several times a step, as no reference does; step with an "
    "optimizer that calls it once, such as SGD, to have the gradients of the closure judged"
)


class InputGuard:
    """The stress scenario, and a record of it from before the loop ran."""

    def __init__(self, build: Callable[[str], Cast] = stress_scenario.build) -> None:
        self._build = build
        self.read: set[str] = set()
        """The fields of the plan that the loop has read."""
        self.autocasts: set[torch.dtype | None] = set()
        """The dtypes to which autocast was on at its forwards; ``None`` for a forward without autocast."""
        self.own_models: dict[str, str] = {}
        """The models in variables of the loop, other than the one that it was given: the class of each, by name."""

    def build(self, precision: str) -> Cast:
        """Build the scenario and record it; for :func:`gradparity.check.running.observe.observe`."""
        self.cast = self._build(precision)
        self.draws, self.weights = DrawsWatcher(self.cast.model, self.cast.batches), WeightsWatcher(self.cast.model)
        plan = replace(self.cast.plan, restart=self.draws.restarting(self.cast.plan.restart))
        self.cast = replace(self.cast, plan=noting(plan, self.read))
        self.parameters = dict(self.cast.model.named_parameters(remove_duplicate=False))
        _note_autocasts(self.cast.model, self.autocasts)
        self.hooks = _number_of_hooks(self.cast)
        self.others: list[Optimizer] = []
        self.own: list[list[OwnOptimizer | None]] = []
        self.scaler: OwnScaler | None = None
        self.searching = ""
        """The class of an optimizer that calls its closure several times a step."""
        return self.cast

    @property
    def own_autocast(self) -> torch.dtype | None:
        """Return the dtype of the autocast of its own under which all its forwards run; ``None`` without one."""
        own = self.autocasts if "autocast" not in self.read else set()
        return next(iter(own)) if len(own) == 1 else None

    @contextmanager
    def watching_others(self) -> Iterator[None]:
        """Record all other optimizers that make a step in the block."""

        def notice(optimizer: Optimizer, *_: Any) -> None:
            self.own_models |= _models_on_the_stack(self.cast.model)
            self.scaler = self.scaler or own_scaler(sys._getframe(1), self.cast.scaler)
            if optimizer is self.cast.optimizer:
                return
            if not any(optimizer is other for other in self.others):
                self.others.append(optimizer)
                self.own.append([])
            index = next(i for i, other in enumerate(self.others) if other is optimizer)
            names = {id(p): name for name, p in self.cast.model.named_parameters()}
            self.own[index].append(own_optimizer(optimizer, names))

        begun: list[int] = []

        def begins(*_: Any) -> None:
            begun.append(len(self.weights.seen))

        def ends(optimizer: Optimizer, *_: Any) -> None:
            if len(self.weights.seen) - begun.pop() > 1:
                self.searching = type(optimizer).__name__

        with ExitStack() as stack:
            for hook in (notice, begins):
                stack.callback(register_optimizer_step_pre_hook(hook).remove)
            stack.callback(register_optimizer_step_post_hook(ends).remove)
            yield

    def other_optimizer(self) -> str:
        """Return a predicate that names another optimizer that made steps, and on what; empty if none did."""
        for kind in self._kinds(ours=True):
            if self.searching:
                return _SEARCHES.format(self.searching)
            return f"trains the model with an optimizer of its own ({kind}), not with the one that it was given"
        for kind in self._kinds(ours=False):
            return f"trains other parameters than the given model's, such as a copy's, with an {kind} of its own"
        return ""

    def _kinds(self, ours: bool) -> list[str]:
        """Return the classes of its optimizers that train the given model, or of those that do not."""
        model = {id(p) for p in self.parameters.values()}
        return [type(other).__name__ for other in self.others if bool(_trained_by(other) & model) == ours]

    def other_training(self) -> str:
        """Return a predicate on another model that the loop trains beside the given one; empty if there is none."""
        beside = self._kinds(ours=False)
        if not beside:
            return ""
        models = f", such as {listed([f'{name} ({kind})' for name, kind in self.own_models.items()])}"
        return (
            f"also trains other parameters than the given model's{models if self.own_models else ''}, with "
            f"{listed(list(dict.fromkeys(beside)))} of its own"
        )

    def own_optimizers(self) -> tuple[OwnOptimizer, ...]:
        """Return the optimizers of its own with which it trains the model; none if one cannot be built again."""
        model = {id(p) for p in self.parameters.values()}
        ours = [steps for other, steps in zip(self.others, self.own, strict=True) if _trained_by(other) & model]
        own = tuple(with_its_steps([one for one in steps if one is not None]) for steps in ours if all(steps))
        return own if len(own) == len(ours) else ()

    def own_updates(self) -> OwnUpdates:
        """Return the updates of the model that are not those of an optimizer that can be built again."""
        if self.searching:
            return OwnUpdates()
        kinds = () if self.own_optimizers() else tuple(dict.fromkeys(self._kinds(ours=True)))
        return self.weights.own(kinds)

    def untrained_parameter(self) -> str:
        """Return a predicate on a replaced or new parameter that the optimizer does not hold; empty if none is."""
        ours = _trained_by(self.cast.optimizer)
        now = dict(self.cast.model.named_parameters(remove_duplicate=False))
        if not ours & {id(p) for p in now.values()}:
            return "leaves an optimizer that holds none of the model's parameters"
        for name, p in now.items():
            if p is not self.parameters.get(name) and id(p) not in ours:
                did = "replaces" if name in self.parameters else "adds"
                return f"{did} the parameter {name}, and the optimizer does not hold the new one"
        return ""

    def hooks_left(self) -> list[str]:
        """Return the modules, parameters and optimizers that have more hooks now than before."""
        now = _number_of_hooks(self.cast)
        return [owner for owner, number in now.items() if number > self.hooks.get(owner, 0)]


def _note_autocasts(given: nn.Module, found: set[torch.dtype | None]) -> None:
    """Add to ``found`` the dtype of autocast at each forward of a model in a training; ``None`` without autocast."""

    def note(model: nn.Module, _: object) -> None:  # no method: a copy of the model would copy its object
        if model is given and model.training and torch.is_grad_enabled():
            found.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)

    given.register_forward_pre_hook(note)


def _models_on_the_stack(given: nn.Module) -> dict[str, str]:
    """Return the class of each other model with parameters in a variable of the user's functions, by name."""
    known = {id(module) for module in given.modules()}
    found: dict[str, str] = {}
    frame = sys._getframe(2)
    while frame is not None and frame.f_code.co_filename != user_loop.__file__:
        if of_the_user(frame.f_code.co_filename):
            for name, value in list(frame.f_locals.items()):
                if isinstance(value, nn.Module) and id(value) not in known and not _holds(value, given):
                    found[name] = type(value).__name__
        if frame.f_back is None:
            break
        frame = frame.f_back
    return found


def _holds(module: nn.Module, given: nn.Module) -> bool:
    """Return whether ``module`` has no parameters, or any of ``given``, as a wrapper such as DDP has."""
    theirs = {id(p) for p in module.parameters()}
    return not theirs or not theirs.isdisjoint(id(p) for p in given.parameters())


def _trained_by(optimizer: Optimizer) -> set[int]:
    """Return the identities of the parameters that an optimizer trains."""
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def _number_of_hooks(cast: Cast) -> dict[str, int]:
    """Return the number of hooks on each module, on each parameter and on the optimizer, by name."""
    things: dict[str, object] = {f"the module {name}": m for name, m in cast.model.named_modules() if name}
    things |= {f"the parameter {name}": p for name, p in cast.model.named_parameters()}
    things |= {"the model": cast.model, "the optimizer": cast.optimizer}
    return {name: sum(map(len, hook_dictionaries(thing))) for name, thing in things.items()}


def hook_dictionaries(thing: object) -> Iterator[dict[int, object]]:
    """Yield the dictionaries in which torch keeps the hooks of a module, a parameter or an optimizer."""
    names = [name for name in dir(thing) if name.startswith("_") and name.endswith("_hooks")]
    for found in (getattr(thing, name) for name in names):
        if isinstance(found, dict):
            yield found


def still_running(before: set[threading.Thread]) -> str:
    """Return the name of a thread that is not in ``before``, or of a process, that still runs; empty if none matters.

    A library's threads may still run, if they do not keep the process from ending.
    """
    stacks = sys._current_frames()
    for thread in threading.enumerate():
        walked = traceback.walk_stack(stacks[thread.ident]) if thread.ident in stacks else ()
        frames = [Frame(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in walked]
        users, pooled = innermost(frames), any(frame.file == pools.__file__ for frame in frames)
        if thread not in before and (users or not (thread.daemon or pooled)):
            return f"the thread {thread.name}{in_brackets(users)}"
    processes = [process for process in multiprocessing.active_children() if not process.daemon]
    return f"the process {processes[0].name}" if processes else ""
