"""Watch over everything that trains in this process: it finds optimizers by itself and writes down what they do.

It writes to no tensor of the training and draws no random number. An error in it ends the watching, never the training.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from gradparity.auditing.facts import Retrained, RunFacts
from gradparity.auditing.scripts.facts_of_ranks import Ranks, is_sharded
from gradparity.auditing.scripts.spawned_processes import Spawned, go_on
from gradparity.auditing.watching.found_modules import Modules
from gradparity.auditing.watching.found_optimizers import Registry
from gradparity.auditing.watching.found_without_optimizer import not_frozen, outsiders
from gradparity.auditing.watching.function_watchers import LoopWatchers
from gradparity.auditing.watching.parameters_without_optimizer import NotFrozen, Origin, Outsider
from gradparity.auditing.watching.user_lines import Line, Raised, here
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer
from gradparity.errors import in_a_line
from gradparity.trace.harmless_hooks import Call, Guard, Watching
from gradparity.trace.hook_check import inputs_of, require_sight
from gradparity.trace.isolation import warn
from gradparity.trace.wrapping import wrapped

STEPS = 20
"""Steps of each optimizer that are watched by default."""


class Watch:
    """Follows every optimizer of this process for some steps.

    Args:
        steps: the number of steps of each optimizer to watch; then the watching ends.
        done: called once, when every optimizer that has stepped has made ``steps`` steps.
    """

    def __init__(self, steps: int = STEPS, done: Callable[[], None] = go_on) -> None:
        self.steps = steps
        self.done = done
        self.modules = Modules()
        self.fault: Exception | None = None
        self.raised: Raised | None = None
        """The exception that has ended the loop, if one has."""
        self.known = Registry(self.modules)
        self._watchers = LoopWatchers(self.known, self._enough)
        self._let_go_early = False
        self._replays = False
        """True once a part of a step was captured in a CUDA graph."""
        self._held: set[int] = set()
        """The number of each parameter that was in an optimizer at any time."""
        self._outsiders: dict[int, Outsider] = {}
        self._retrained: dict[int, Retrained] = {}
        self.ranks = Ranks()
        self.spawned = Spawned(steps, done)
        self._not_frozen: dict[int, NotFrozen] = {}
        self._guard = Guard(self._failed, self._captured)
        self._afterwards = Guard(self._failed)
        self._built_later: dict[Line, str] = {}
        """The class of each optimizer that was built after the watched steps, by the line that built it."""

    def add(self, optimizer: Optimizer, model: nn.Module | None = None) -> None:
        """Watch an optimizer that was built before the watching began, and know its model's names."""
        self.known.trainee(optimizer, here())
        if model is not None:
            self.modules.add(model)

    def let_go(self) -> None:
        """Stop the watching; from now on nothing is looked at."""
        self._guard.over = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch all that runs in the block, then remove every hook and patch.

        Raises:
            UserError: before anything is watched, if nothing would be seen on this version of torch.
        """
        require_sight()
        with ExitStack() as stack:
            stack.callback(self.let_go)
            for owner, name, watcher in self._watchers.places():
                stack.enter_context(wrapped(owner, name, self._guard.around(watcher)))
            stack.enter_context(wrapped(Optimizer, "__init__", self._afterwards.around(self._later)))
            stack.callback(register_optimizer_step_pre_hook(self._before_step).remove)
            stack.callback(register_optimizer_step_post_hook(self._after_step).remove)
            stack.enter_context(self.modules.watching(self._guard))
            stack.callback(self._look_back)
            stack.enter_context(self.spawned.watching())
            self.ranks.look()
            yield

    def facts(self) -> RunFacts:
        """Return all facts seen so far."""
        self._look_back()
        outsiders = [p for key, p in self._outsiders.items() if key not in self._held]
        scalers = [line for _, line in self.known.scalers.values()]
        notes = []
        if self.fault is not None:
            notes.append(f"the watching ended early: {in_a_line(self.fault)}")
        if self._replays:
            notes.append("a CUDA graph was captured, and its replays are not seen; the training is judged up to there")
        seen = {story.made for story in self.known.stories}
        notes += [
            f"{name}, built at {line} after the watched steps, was not watched"
            for line, name in self._built_later.items()
            if line not in seen
        ]
        return RunFacts(
            stories=self.known.stories,
            outsiders=outsiders,
            retrained=list(self._retrained.values()),
            not_frozen=list(self._not_frozen.values()),
            norms=self.modules.norms.undone(),
            loads=self.known.loads,
            scalers=scalers,
            schedulers=self.known.schedulers,
            notes=notes,
            averages=self._watchers.averages.moves(),
            input_gradients=self._watchers.input_gradients.found,
            raised=self.raised,
            let_go=self._let_go_early,
            passes=self._watchers.samplers.passes,
            world=self.ranks.world,
        )

    def all_facts(self, patience: float) -> list[RunFacts]:
        """Return all facts seen so far: this process's, then those of other ranks, or of processes it has started.

        The first are those of a process that has trained, if one has.

        Args:
            patience: seconds to wait for the others.
        """
        own = self.facts()
        found = [own, *self.ranks.exchange(own, patience), *self.spawned.all_facts(patience)]
        if len(found) > 1 and not own.stories:
            found[1].notes += own.notes
            found[1].raised = found[1].raised or own.raised
            del found[0]
        return found

    def _look_back(self) -> None:
        self._guard.run(self.known.settle_all)
        self._guard.run(self._look_around)

    def _look_around(self) -> None:
        """Look at all models and optimizers, while they are alive: names, hyperparameters, parameters outside."""
        names, copies = self.modules.names(), self.modules.replicas.parameters()
        for trainee in self.known.alive():
            optimizer, parameters = trainee.optimizer(), trainee.parameters()
            if optimizer is not None:
                self._held |= {self.modules.key(p) for p in parameters}
                story = trainee.story
                story.trained = tuple(p.requires_grad for p in parameters)
                before = story.replicated if len(story.replicated) == len(parameters) else [False] * len(parameters)
                story.replicated = tuple(id(p) in copies or was for p, was in zip(parameters, before, strict=True))
                story.sharded = tuple(is_sharded(p) for p in parameters)
                story.names = tuple(names.get(id(p), f"parameter {i}") for i, p in enumerate(parameters))
                story.dimensions = tuple(tuple(p.ndim for p in g["params"]) for g in optimizer.param_groups)
                story.shapes = tuple(tuple(p.shape) for p in parameters)
                story.loose = not any(id(p) in names for p in parameters)
                story.groups = tuple({k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups)
        outside = outsiders(self.modules, self._held)
        once = {key for key, p in self._outsiders.items() if p.origin is not Origin.ALONE}  # its module may be gone now
        self._outsiders |= {k: p for k, p in outside.items() if p.origin is not Origin.ALONE or k not in once}
        self._retrained |= self.modules.retrained()
        self._not_frozen |= not_frozen(self.modules)

    def _later(self, call: Call) -> Watching:
        yield
        if self._let_go_early:
            self._built_later.setdefault(here(), type(call.args[0]).__name__)

    def _failed(self, error: Exception) -> None:
        self.fault = error
        warn(f"the audit ends here, the training goes on: {in_a_line(error)}")

    def _captured(self, function: Callable[..., Any], *args: Any) -> None:
        """End the watching if a CUDA graph captures what changes gradients or weights: each replay does it, unseen.

        It goes on after a graph of ``autograd.grad``, with which PyTorch makes a callable that is one.
        """
        called = args[-1] if args and isinstance(args[-1], Call) else None
        if function == self._watchers.step_begins or (called is not None and inputs_of(called.args, called.kwargs)[1]):
            self._replays = self._let_go_early = True
            self.let_go()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's own has no annotations
    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._guard.run(self._watchers.step_begins, optimizer)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's own has no annotations
    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._guard.run(self._watchers.step_ends, optimizer, args, kwargs)

    def _enough(self, trainee: WatchedOptimizer) -> None:
        self.ranks.look()
        made = trainee.story.steps
        if made >= self.steps or made & (made - 1) == 0:  # a model may be gone later: 1, 2, 4, 8, ... steps
            self._look_around()
        if trainee.story.steps < self.steps:
            return
        if all(t.story.steps >= self.steps for t in self.known.alive() if t.story.steps):
            self.known.settle_all()
            self._let_go_early = True
            self.let_go()
            self.done()
