"""Watchers of PyTorch's functions, in the order of a step. Each only reads, and adds what it saw to a story."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch._guards import TracingContext
from torch.optim import Optimizer

from gradparity.auditing.events import Backward, StepMade, ZeroGrad
from gradparity.auditing.facts import OwnLoad
from gradparity.auditing.watching.backward_facts import BackwardSigns
from gradparity.auditing.watching.call_stack import runs_inside
from gradparity.auditing.watching.clip_watchers import ClipWatchers
from gradparity.auditing.watching.found_optimizers import Registry
from gradparity.auditing.watching.input_gradients import InputGradients
from gradparity.auditing.watching.kept_graphs import KeptGraphs
from gradparity.auditing.watching.later import later, together
from gradparity.auditing.watching.loss_weights import Reading, marked_again, walked
from gradparity.auditing.watching.samplers import SamplerWatcher
from gradparity.auditing.watching.scaler_watchers import ScalerWatchers, scale_of, tracker_of
from gradparity.auditing.watching.schedule_watchers import ScheduleWatchers
from gradparity.auditing.watching.user_lines import here
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer, is_torchs, rates, sums
from gradparity.auditing.watching.weight_averages import Averages
from gradparity.trace.harmless_hooks import Call, Watching
from gradparity.trace.hook_check import ENGINE, inputs_of
from gradparity.trace.late_hash import late_hash_of_all
from gradparity.trace.nested_steps import is_nested, stepping, takes_closure


class LoopWatchers:
    """The watchers of one audit.

    Args:
        known: the optimizers and what happens to them.
        stepped: called after each step of an optimizer, made or skipped.
    """

    def __init__(self, known: Registry, stepped: Callable[[WatchedOptimizer], None]) -> None:
        self.known = known
        self.modules = known.modules
        self._enough = stepped
        self._scalers = ScalerWatchers(known, stepped)
        self._schedulers = ScheduleWatchers(known)
        self._clips = ClipWatchers(known)
        self.averages = Averages(known.modules)
        self.samplers = SamplerWatcher(lambda: known.events)
        self.input_gradients = InputGradients(known)
        self._kept = KeptGraphs()

    def places(self) -> Iterator[tuple[Any, str, Callable[[Call], Watching]]]:
        """Yield each function of PyTorch that has no hook: its owner, its name, and its watcher."""
        yield Optimizer, "__init__", self._built
        yield torch.autograd, ENGINE, self._differentiate
        yield from self._scalers.places()
        yield from self._schedulers.places()
        yield from self.samplers.places()
        yield from self._clips.places()
        yield Optimizer, "zero_grad", self._zero_grad
        yield nn.Module, "zero_grad", self._zero_grad
        yield nn.Module, "train", self._mode
        yield nn.Module, "load_state_dict", self._load
        yield Optimizer, "load_state_dict", self._resume
        yield torch.utils, "swap_tensors", self._swap

    def _built(self, call: Call) -> Watching:
        yield
        self.known.trainee(call.args[0], here())

    def _zero_grad(self, call: Call) -> Watching:
        owner = call.args[0]
        if isinstance(owner, nn.Module):
            self.modules.meet(owner)
        if runs_inside("zero_grad"):
            yield
            return
        concerned = self.known.concerned(owner)
        before = [(trainee, trainee.gradients()) for trainee in concerned]
        for trainee, _ in before:
            if trainee.awaited is None or trainee.marks() != trainee.untouched:
                self.known.settle(trainee)
            else:  # the loop empties before it writes the gradients that autograd.grad has returned
                left = trainee.expected.items()
                trainee.expected = {i: one.after_zero_grad() if one is not None else None for i, one in left}
        yield
        line = here()
        for trainee, gradients in before:
            emptied = ZeroGrad(isinstance(owner, Optimizer))
            self.known.tell(trainee, emptied, gradients, trainee.gradients(), line)

    def _mode(self, call: Call) -> Watching:
        if not runs_inside("train"):
            self.modules.mode_set(call.args[0], bool(call.get(1, "mode", True)), here())
        yield

    def _load(self, call: Call) -> Watching:
        model: nn.Module = call.args[0]
        given = call.get(1, "state_dict")
        own = dict(model.named_parameters())
        its = [given[name] for name in own if name in given] if isinstance(given, Mapping) else []
        if its and all(
            isinstance(t, torch.Tensor) and t.data_ptr() == own_.data_ptr() != 0
            for t, own_ in zip(its, own.values(), strict=False)
        ):
            self.known.loads.append(OwnLoad(type(model).__name__, here()))
        yield
        for trainee in self.known.concerned(model):
            trainee.loaded = True

    def _resume(self, call: Call) -> Watching:
        yield
        self.known.trainee(call.args[0]).resumed = True

    def _swap(self, call: Call) -> Watching:
        """Hold no weak reference to tensors that are to be swapped: PyTorch refuses that, as in ``model.to(dtype)``."""
        tensors = [t for t in (*call.args, *call.kwargs.values()) if isinstance(t, torch.Tensor)]
        self.averages.forget(tensors)
        with self.modules.key.without(tensors):
            yield

    def _differentiate(self, call: Call) -> Watching:
        # Inside another backward, as a checkpoint's; or the compiler traces, and would trace what is done here too.
        if torch._C._current_graph_task_id() != -1 or TracingContext.try_get() is not None:
            yield
            return
        inputs, into_grad = inputs_of(call.args, call.kwargs)
        roots = tuple(call.args[0])
        graph = walked(roots)
        reached = {id(leaf) for leaf in graph.leaves}
        if inputs:
            reached &= {id(x) for x in inputs}
        concerned, alive = self.known.holding(reached), self.known.alive()
        resting = frozenset(t.story.number for t in alive if not any(p.requires_grad for p in t.parameters()))
        line = here()
        if not into_grad and not call.get(3, "create_graph", False):
            self.input_gradients.look(roots, inputs, graph, line)
        for trainee in concerned:
            self.known.settle(trainee)
        before = [(trainee, trainee.gradients(), trainee.weights()) for trainee in concerned]
        signs = BackwardSigns(graph.signs, roots, reached, self.modules)
        for trainee, gradients, _ in before:
            signs.begins(trainee, gradients)
            self.averages.look(trainee)
        inside, again = bool(stepping()), into_grad and marked_again(graph.losses)
        same_forward = self._kept.passes(graph.nodes, bool(call.get(2, "keep_graph", False)))
        self.modules.backward_passed_by(reached)
        loss = late_hash_of_all(root.detach() for root in roots if isinstance(root, torch.Tensor))
        exchange = self.modules.replicas.exchange(reached)
        modes = {t.story.number: self.modules.modes({id(p) for p in t.parameters()}) for t in concerned}
        reading = Reading(graph.losses, graph.scales, graph.paddings)
        with reading:
            result = yield
        signs.is_over()
        if into_grad and not inputs:
            self.modules.reached({id(x): x for x in graph.leaves}.values(), line)
        reaches = self._clips.reached_last = frozenset(trainee.story.number for trainee in concerned)
        for trainee, gradients, weights in before:
            mode = modes[trainee.story.number]
            what = Backward(
                into_grad,
                later(together, *graph.scales),
                reading.weights(),
                reaches,
                inside,
                weights,
                mode,
                again=again,
                same_forward=same_forward,
                half=graph.half,
                shared=trainee.shared(),
                signs=signs.of(trainee, mode.counted if mode is not None and mode.norms else None),
                loss=loss,
                exchange=exchange,
                resting=resting,
                misfits=tuple(sorted(graph.misfits, key=lambda misfit: misfit.value)),
            )
            if not into_grad and not call.get(3, "create_graph", False):  # else they are for another derivative
                trainee.expected = sums(trainee.parameters(), inputs, result)
                trainee.awaited, trainee.untouched = len(trainee.story.events), trainee.marks()
            self.known.tell(trainee, what, gradients, trainee.gradients(), line)

    def step_begins(self, optimizer: Optimizer) -> None:
        """Look at what a step starts from."""
        if not is_nested(optimizer, stepping()):
            trainee = self.known.trainee(optimizer)
            self.known.settle(trainee)
            self.averages.look(trainee)
            trainee.weights_before, trainee.state_before = trainee.weights(), trainee.state()
            trainee.gradients_before = None if is_torchs(optimizer) else trainee.gradients()

    def step_ends(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record a step that was made."""
        if is_nested(optimizer, stepping()):
            return
        trainee = self.known.trainee(optimizer)
        gradients = trainee.gradients()
        scaler = None if self._scalers.running is None else self.known.number_of_scaler(self._scalers.running)
        scale = None if self._scalers.running is None else scale_of(self._scalers.running)
        closure = takes_closure(args, kwargs)
        what = StepMade(
            False,
            scaler,
            scale,
            trainee.weights_before,
            trainee.weights(),
            rates(optimizer),
            closure,
            trainee.state_before,
            trainee.state(),
            None if self._scalers.running is None else tracker_of(self._scalers.running),
            trainee.loaded,
            trainee.resumed,
            frozenset(i for i, p in enumerate(trainee.parameters()) if not p.requires_grad),
            trainee.unread_rate(),
        )
        trainee.loaded = trainee.resumed = False
        before = gradients if closure or trainee.gradients_before is None else trainee.gradients_before
        self.known.tell(trainee, what, before, gradients, here())
        self.averages.look(trainee)
        self._enough(trainee)
