"""Watch over everything that trains in this process: it finds optimizers by itself and writes down what they do.

It writes to no tensor of the training and draws no random number. An error in it ends the watching, never the training.
"""

import sys
import weakref
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

import torch
import xxhash
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad
from torch.optim import Optimizer, lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from gradparity.audit.events import (
    Account,
    Backward,
    Clip,
    Event,
    Gradients,
    Outsider,
    Retrained,
    Schedule,
    Step,
    Story,
    Unscale,
    Update,
    What,
    Written,
    ZeroGrad,
)
from gradparity.audit.lines import NOWHERE, Line, Raised, here
from gradparity.audit.loss_weights import SCALED, Reading, walked
from gradparity.audit.modules import Modules
from gradparity.trace.canary import ENGINE, inputs_of, require_sight
from gradparity.trace.fingerprint import fingerprint
from gradparity.trace.guard import Call, Guard
from gradparity.trace.isolation import warn
from gradparity.trace.nested_steps import is_nested, stepping, takes_closure
from gradparity.trace.wrapping import wrapped

Watching: TypeAlias = Generator[None, Any, None]

STEPS = 20
"""Steps of each optimizer that are watched by default."""


class _Trainee:
    """One optimizer as it is watched: its story, and what is not over yet."""

    def __init__(self, optimizer: Optimizer, number: int, made: Line) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.story = Story(number, type(optimizer).__name__, made)
        self.weights_before = self.state_before = ""
        self.expected: dict[int, tuple[str, str] | None] = {}
        """For gradients of ``autograd.grad``: by position, the digest of the sum, and of the new gradient alone."""
        self.awaited: int | None = None
        """The position of the event whose gradients the loop has not written yet."""

    def parameters(self) -> list[Tensor]:
        optimizer = self.optimizer()
        return [] if optimizer is None else [p for group in optimizer.param_groups for p in group["params"]]

    def gradients(self) -> Gradients:
        return tuple(None if p.grad is None else fingerprint(p.grad) for p in self.parameters())

    def state(self) -> str:
        """Return a digest of the optimizer's own state."""
        optimizer, digest = self.optimizer(), xxhash.xxh3_128()
        for p in self.parameters():
            for name, value in (optimizer.state.get(p, {}) if optimizer is not None else {}).items():
                content = fingerprint(value).digest if isinstance(value, Tensor) else repr(value)
                digest.update(f"{name}{content}".encode())
        return digest.hexdigest()

    def shared(self) -> int:
        """Return the number of gradients that share their memory with one before them."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None and _is_plain(p.grad)]
        places = [g.untyped_storage()._cdata for g in gradients]
        return len(places) - len(set(places))

    def weights(self) -> str:
        """Return a digest of all parameters."""
        digest = xxhash.xxh3_128()
        for p in self.parameters():
            digest.update(fingerprint(p).digest.encode())
        return digest.hexdigest()


class Watch:
    """Follows every optimizer of this process for some steps.

    Args:
        steps: the number of steps of each optimizer to watch; then the watching ends.
        done: called once, when every optimizer that has stepped has made ``steps`` steps.
    """

    def __init__(self, steps: int = STEPS, done: Callable[[], None] = lambda: None) -> None:
        self.steps = steps
        self.done = done
        self.modules = Modules()
        self.fault: Exception | None = None
        self.raised: Raised | None = None
        """The exception that has ended the loop, if one has."""
        self._trainees: dict[int, _Trainee] = {}
        self._scalers: dict[int, tuple[GradScaler, Line]] = {}
        self._schedulers: list[tuple[int, str, Line]] = []
        self._scaler: GradScaler | None = None
        """The scaler whose ``step`` runs."""
        self._number = 0
        self._let_go_early = False
        self._notes: list[str] = []
        self._held: set[int] = set()
        """The ``id`` of each parameter that was in an optimizer at any time."""
        self._outsiders: dict[int, Outsider] = {}
        self._retrained: dict[int, Retrained] = {}
        self._guard = Guard(self._failed)

    def add(self, optimizer: Optimizer, model: nn.Module | None = None) -> None:
        """Watch an optimizer that was built before the watching began, and know its model's names."""
        self._trainee(optimizer, here())
        if model is not None:
            self.modules.add(model)

    @property
    def over(self) -> bool:
        """Return whether the watching has ended."""
        return self._guard.over

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
            for owner, name, watcher in self._places():
                stack.enter_context(wrapped(owner, name, self._guard.around(watcher)))
            stack.callback(register_optimizer_step_pre_hook(self._before_step).remove)
            stack.callback(register_optimizer_step_post_hook(self._after_step).remove)
            stack.enter_context(self.modules.watching(self._guard))
            yield
            self._guard.run(self._settle_all)

    def account(self) -> Account:
        """Return all facts seen so far."""
        self._guard.run(self._settle_all)
        self._guard.run(self._look_around)
        stories = [t.story for t in self._trainees.values() if t.story.events]
        outsiders = [p for key, p in self._outsiders.items() if key not in self._held]
        scalers = [line for _, line in self._scalers.values()]
        notes = list(self._notes)
        if self.fault is not None:
            notes.append(f"the watching ended early: {type(self.fault).__name__}: {' '.join(str(self.fault).split())}")
        return Account(
            stories=stories,
            outsiders=outsiders,
            retrained=list(self._retrained.values()),
            scalers=scalers,
            schedulers=self._schedulers,
            notes=notes,
            raised=self.raised,
            let_go=self._let_go_early,
        )

    def _look_around(self) -> None:
        """Look at all models and optimizers, while they are alive: names, hyperparameters, parameters outside."""
        names = self.modules.names()
        for trainee in self._alive():
            optimizer, parameters = trainee.optimizer(), trainee.parameters()
            if optimizer is not None:
                self._held |= {id(p) for p in parameters}
                story = trainee.story
                story.trained = tuple(p.requires_grad for p in parameters)
                story.names = tuple(names.get(id(p), f"parameter {i}") for i, p in enumerate(parameters))
                story.groups = tuple({k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups)
        self._outsiders |= self.modules.outsiders(self._held)
        self._retrained |= self.modules.retrained()

    def _failed(self, error: Exception) -> None:
        self.fault = error
        warn(f"the audit ends here, the training goes on: {type(error).__name__}: {' '.join(str(error).split())}")

    def _places(self) -> Iterator[tuple[Any, str, Callable[[Call], Watching]]]:
        """Yield each function of PyTorch that has no hook: its owner, its name, and its watcher."""
        yield Optimizer, "__init__", self._built
        yield torch.autograd, ENGINE, self._differentiate
        yield GradScaler, "__init__", self._scaler_built
        yield GradScaler, "scale", self._scale
        yield GradScaler, "unscale_", self._unscale
        yield GradScaler, "step", self._scaler_step
        yield GradScaler, "update", self._update
        yield clip_grad, "_group_tensors_by_device_and_dtype", self._clip
        yield clip_grad, "_get_total_norm", self._clip_of_nothing
        yield lr_scheduler.LRScheduler, "__init__", self._scheduler_built
        yield Optimizer, "zero_grad", self._zero_grad
        yield nn.Module, "zero_grad", self._zero_grad
        yield nn.Module, "train", self._mode
        for kind in {lr_scheduler.LRScheduler, *_schedulers_with_a_step()}:
            yield kind, "step", self._schedule

    # What is built

    def _built(self, call: Call) -> Watching:
        yield
        self._trainee(call.args[0], here())

    def _trainee(self, optimizer: Optimizer, line: Line = NOWHERE) -> _Trainee:
        known = self._trainees.get(id(optimizer))
        if known is None or known.optimizer() is not optimizer:
            if known is not None:  # its id was used before, by an optimizer that is gone
                self._trainees[-len(self._trainees) - 1] = known
            known = _Trainee(optimizer, len(self._trainees), line)
            self._trainees[id(optimizer)] = known
            self.modules.optimizer_built(known.parameters())
        return known

    def _scaler_built(self, call: Call) -> Watching:
        yield
        self._number_of_scaler(call.args[0])

    def _number_of_scaler(self, scaler: GradScaler) -> int:
        if id(scaler) not in self._scalers:
            self._scalers[id(scaler)] = scaler, here()  # held, so that no other scaler gets its id
        return list(self._scalers).index(id(scaler))

    # What happens, in the order of a step

    def _tell(self, trainee: _Trainee, what: What, before: Gradients, after: Gradients, line: Line) -> None:
        self._number += 1
        random = fingerprint(torch.get_rng_state()).digest
        trainee.story.events.append(Event(what, self._number, line, before, after, random))

    def _zero_grad(self, call: Call) -> Watching:
        owner = call.args[0]
        if stack_has_more_of("zero_grad"):
            yield
            return
        concerned = self._of(owner)
        before = [(trainee, trainee.gradients()) for trainee in concerned]
        for trainee, _ in before:
            self._settle(trainee)
        yield
        line = here()
        for trainee, gradients in before:
            self._tell(trainee, ZeroGrad(), gradients, trainee.gradients(), line)

    def _mode(self, call: Call) -> Watching:
        if not stack_has_more_of("train"):
            self.modules.mode_set(call.args[0], bool(call.get(1, "mode", True)), here())
        yield

    def _of(self, owner: Any) -> list[_Trainee]:
        """Return who is concerned by a call of ``owner``: an optimizer, or a module with parameters of some."""
        if isinstance(owner, Optimizer):
            return [self._trainee(owner)]
        ids = {id(p) for p in owner.parameters()}
        return [t for t in self._alive() if not ids.isdisjoint(map(id, t.parameters()))]

    def _alive(self) -> list[_Trainee]:
        return [t for t in self._trainees.values() if t.optimizer() is not None]

    def _scale(self, call: Call) -> Watching:
        result = yield
        scaler: GradScaler = call.args[0]
        self._number_of_scaler(scaler)
        if scaler.is_enabled():
            for tensor in result if isinstance(result, (list, tuple)) else [result]:
                if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                    metadata: Any = tensor.grad_fn.metadata
                    metadata[SCALED] = scaler.get_scale()

    def _differentiate(self, call: Call) -> Watching:
        if torch._C._current_graph_task_id() != -1:  # inside another backward, as a checkpoint's
            yield
            return
        inputs, into_grad = inputs_of(call.args, call.kwargs)
        roots = tuple(call.args[0])
        graph = walked(roots)
        reached = {id(leaf) for leaf in graph.leaves}
        if inputs:
            reached &= {id(x) for x in inputs}
        alive = self._alive()
        concerned = [t for t in alive if not reached.isdisjoint(map(id, t.parameters()))]
        line = here()
        for trainee in concerned:
            self._settle(trainee)
        before = [(trainee, trainee.gradients(), trainee.weights()) for trainee in concerned]
        create_graph = bool(call.args[3] if len(call.args) > 3 else call.kwargs.get("create_graph", False))
        scale = 1.0
        for one in graph.scales:
            scale *= one
        inside, again = bool(stepping()), into_grad and _again(graph.losses)
        self.modules.backward_passed_by(reached)
        modes = {t.story.number: self.modules.modes({id(p) for p in t.parameters()}) for t in concerned}
        reading = Reading(graph.losses, scale)
        with reading:
            result = yield
        if into_grad and not inputs:
            self.modules.reached(reached, line)
        reaches = frozenset(trainee.story.number for trainee in concerned)
        for trainee, gradients, weights in before:
            what = Backward(
                into_grad,
                tuple(graph.scales),
                reading.weights(),
                reaches,
                inside,
                weights,
                create_graph,
                modes[trainee.story.number],
                again=again,
                half=graph.half,
                shared=trainee.shared(),
            )
            if not into_grad:
                trainee.expected = _sums(trainee.parameters(), inputs, result)
                trainee.awaited = len(trainee.story.events)
            self._tell(trainee, what, gradients, trainee.gradients(), line)

    def _settle(self, trainee: _Trainee) -> None:
        """Look at gradients of ``autograd.grad`` that the loop has written since, and complete that event."""
        if trainee.awaited is None:
            return
        position, trainee.awaited = trainee.awaited, None
        event = trainee.story.events[position]
        assert isinstance(event.what, Backward)
        now = trainee.gradients()
        what = replace(event.what, written=_written(trainee.expected, now), shared=trainee.shared())
        trainee.story.events[position] = replace(event, what=what, after=now)

    def _settle_all(self) -> None:
        for trainee in self._trainees.values():
            self._settle(trainee)

    def _unscale(self, call: Call) -> Watching:
        scaler: GradScaler = call.args[0]
        optimizer = _bare(call.get(1, "optimizer"))
        if not scaler.is_enabled() or not isinstance(optimizer, Optimizer):
            yield
            return
        trainee = self._trainee(optimizer)
        self._settle(trainee)
        before = trainee.gradients()
        yield
        self._tell(trainee, Unscale(scaler.get_scale()), before, trainee.gradients(), here())

    def _clip(self, call: Call) -> Watching:
        clipping = _clipping()
        listed = [id(g) for group in call.args[0] for g in group]
        given = set(listed)
        twice = len(listed) - len(given)
        before = []
        if clipping is not None:
            for trainee in self._alive():
                covered = sum(id(p.grad) in given for p in trainee.parameters() if p.grad is not None)
                if covered:
                    self._settle(trainee)
                    before.append((trainee, covered, trainee.gradients()))
        yield
        for trainee, covered, gradients in before:
            assert clipping is not None
            name, threshold = clipping
            self._tell(trainee, Clip(threshold, "value" in name, covered, twice), gradients, (), here())

    def _clip_of_nothing(self, call: Call) -> Watching:
        """Record a clip that was given no gradient, though one optimizer, and only one, has some."""
        tensors = call.get(0, "tensors")
        yield
        if isinstance(tensors, (list, tuple)) and not tensors and stack_has_more_of("clip_grad_norm_"):
            with_gradients = [t for t in self._alive() if any(g is not None and g.norm for g in t.gradients())]
            if len(with_gradients) == 1:
                [trainee] = with_gradients
                self._settle(trainee)
                self._tell(trainee, Clip(None, False, 0), trainee.gradients(), (), here())

    def _scheduler_built(self, call: Call) -> Watching:
        yield
        optimizer = _bare(call.get(1, "optimizer"))
        if isinstance(optimizer, Optimizer):
            made = self._trainee(optimizer).story.number, type(call.args[0]).__name__, here()
            self._schedulers.append(made)

    def _scaler_step(self, call: Call) -> Watching:
        scaler: GradScaler = call.args[0]
        optimizer = _bare(call.get(1, "optimizer"))
        if not scaler.is_enabled() or not isinstance(optimizer, Optimizer):
            yield
            return
        trainee = self._trainee(optimizer)
        self._settle(trainee)
        made = trainee.story.steps
        before, weights, scale = trainee.gradients(), trainee.weights(), scaler.get_scale()
        state = trainee.state()
        self._scaler = scaler
        try:
            yield
        finally:
            self._scaler = None
        if trainee.story.steps == made:
            number = self._number_of_scaler(scaler)
            what = Step(
                True,
                number,
                scale,
                weights,
                trainee.weights(),
                _rates(optimizer),
                state_before=state,
                state_after=trainee.state(),
            )
            self._tell(trainee, what, before, trainee.gradients(), here())
            self._enough(trainee)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's own has no annotations
    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._guard.run(self._step_begins, optimizer)

    def _step_begins(self, optimizer: Optimizer) -> None:
        if not is_nested(optimizer, stepping()):
            trainee = self._trainee(optimizer)
            self._settle(trainee)
            trainee.weights_before, trainee.state_before = trainee.weights(), trainee.state()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's own has no annotations
    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._guard.run(self._step_ends, optimizer, args, kwargs)

    def _step_ends(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_nested(optimizer, stepping()):
            return
        trainee = self._trainee(optimizer)
        gradients = trainee.gradients()
        scaler = None if self._scaler is None else self._number_of_scaler(self._scaler)
        scale = None if self._scaler is None else self._scaler.get_scale()
        closure = takes_closure(args, kwargs)
        what = Step(
            False,
            scaler,
            scale,
            trainee.weights_before,
            trainee.weights(),
            _rates(optimizer),
            closure,
            trainee.state_before,
            trainee.state(),
        )
        self._tell(trainee, what, gradients, gradients, here())
        self._enough(trainee)

    def _enough(self, trainee: _Trainee) -> None:
        made = trainee.story.steps
        if made >= self.steps or made & (made - 1) == 0:  # a model may be gone later: 1, 2, 4, 8, ... steps
            self._look_around()
        if trainee.story.steps < self.steps:
            return
        if all(t.story.steps >= self.steps for t in self._alive() if t.story.steps):
            self._settle_all()
            self._let_go_early = True
            self.let_go()
            self.done()

    def _update(self, call: Call) -> Watching:
        scaler: GradScaler = call.args[0]
        enabled = scaler.is_enabled()
        before = scaler.get_scale() if enabled else 1.0
        yield
        if not enabled:
            return
        number, line = self._number_of_scaler(scaler), here()
        for trainee in self._alive():
            if trainee.story.steps:
                self._tell(trainee, Update(number, before, scaler.get_scale()), (), (), line)

    def _schedule(self, call: Call) -> Watching:
        yield
        scheduler = call.args[0]
        optimizer = _bare(getattr(scheduler, "optimizer", None))
        if isinstance(optimizer, Optimizer) and not stack_has_more_of("step", "_initial_step"):
            what = Schedule(type(scheduler).__name__, int(getattr(scheduler, "last_epoch", 0)), _rates(optimizer))
            self._tell(self._trainee(optimizer), what, (), (), here())


def _bare(optimizer: Any) -> Any:
    """Return the optimizer in a wrapper: Accelerate, Fabric and Lightning keep it under ``optimizer``."""
    while not isinstance(optimizer, Optimizer) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    inner = getattr(optimizer, "optimizer", None)
    return inner if isinstance(inner, Optimizer) else optimizer


def _rates(optimizer: Optimizer) -> tuple[float, ...]:
    return tuple(float(group["lr"]) for group in optimizer.param_groups if "lr" in group)


def _sums(parameters: Sequence[Tensor], inputs: Sequence[Any], result: Any) -> dict[int, tuple[str, str] | None]:
    """Return, by position, the digests that ``p.grad`` has once a gradient was added to it, or has replaced it.

    ``None`` stands for a parameter that has no gradient.
    """
    position = {id(p): index for index, p in enumerate(parameters)}
    found: dict[int, tuple[str, str] | None] = {}
    for p, g in zip(inputs, result, strict=False):
        index = position.get(id(p))
        if index is None or (g is not None and not _is_plain(g)):
            continue
        if g is None:
            found[index] = None
            continue
        alone = fingerprint(g).digest
        found[index] = (alone if p.grad is None else fingerprint(p.grad + g).digest), alone
    return found


def _written(expected: Mapping[int, tuple[str, str] | None], now: Gradients) -> Written:
    """Compare the gradients in ``p.grad`` with what was expected of the loop."""
    counts = {"overwritten": 0, "swapped": 0, "dropped": 0, "other": 0, "zeros": 0}
    each = {digests[1]: index for index, digests in expected.items() if digests is not None}
    for index, digests in expected.items():
        have = now[index] if index < len(now) else None
        if digests is None:
            counts["zeros"] += have is not None and have.norm == 0
            continue
        added, alone = digests
        if have is None:
            counts["dropped"] += 1
        elif have.digest == added:
            continue
        elif have.digest == alone:
            counts["overwritten"] += 1
        elif each.get(have.digest, index) != index:
            counts["swapped"] += 1
        else:
            counts["other"] += 1
    return Written(**counts)


def _is_plain(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.layout == torch.strided


_DIFFERENTIATED = "gradparity differentiated"


def _again(losses: Sequence[Any]) -> bool:
    """Return whether one of these loss nodes was differentiated into ``p.grad`` before, and mark all of them."""
    found = False
    for node in losses:
        found |= _DIFFERENTIATED in node.metadata
        node.metadata[_DIFFERENTIATED] = True
    return found


def _schedulers_with_a_step() -> list[type]:
    kinds = [kind for kind in vars(lr_scheduler).values() if isinstance(kind, type)]
    return [k for k in kinds if issubclass(k, lr_scheduler.LRScheduler) and "step" in vars(k)]


def _clipping() -> tuple[str, float | None] | None:
    """Return the clip function that runs now and its threshold; ``None`` if only a norm is computed."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_globals is not vars(clip_grad):
        frame = frame.f_back
    if frame is None or "total_norm" in frame.f_code.co_name:
        return None
    name, threshold = "", None
    while frame is not None:  # the outermost of torch's clip functions is the one that the loop has called
        if frame.f_globals is vars(clip_grad) and "clip_grad" in frame.f_code.co_name:
            name = frame.f_code.co_name
            threshold = frame.f_locals.get("clip_value", frame.f_locals.get("max_norm"))
        frame = frame.f_back
    return name, None if threshold is None else float(threshold)


def stack_has_more_of(*names: str) -> bool:
    """Return whether a function of one of these names, of torch or of a scheduler, runs further out on the stack."""
    frame: Any = sys._getframe(2)
    count = 0
    while frame is not None:
        code = frame.f_code
        if code.co_name in names and "/torch/" in code.co_filename:
            count += 1
        frame = frame.f_back
    return count > 0
