"""The watchers of a loop, in the order of a step: each puts one event of PyTorch on the timeline."""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad
from torch.optim import Optimizer

from gradparity.parity.bits import same_bits
from gradparity.trace.autograd_graph import Reach, reach
from gradparity.trace.events import Event
from gradparity.trace.gradients_before import GradientsBefore
from gradparity.trace.harmless_hooks import Call, Watching
from gradparity.trace.hook_check import ENGINE, inputs_of
from gradparity.trace.missed_events import Lacks
from gradparity.trace.nested_steps import is_nested, stepping, takes_closure
from gradparity.trace.process_rank import world_size
from gradparity.trace.running_clip import parameters_to_clip
from gradparity.trace.snapshot import TrainingObjects, at_forward, at_ready, live_gradients, unwrapped
from gradparity.trace.timeline import Timeline
from gradparity.trace.wrapping import definer


class Watchers:
    """Puts what a loop does on its timeline.

    Args:
        watched: the objects that the loop trains with.
        timeline: the position of the loop, which passes on a record of each event.
        lacks: counts what the recording will lack.
    """

    def __init__(self, watched: TrainingObjects, timeline: Timeline, lacks: Lacks) -> None:
        self.watched, self.timeline, self.lacks = watched, timeline, lacks
        self.paused = False
        """True while a different loop runs, with its own model and optimizer."""

    def places(self) -> Iterator[tuple[Any, str, Callable[[Call], Watching]]]:
        """Yield each function of PyTorch that has no hook: its owner, its name, and its watcher."""
        yield torch.autograd, ENGINE, self._differentiate
        scaler = type(self.watched.scaler or GradScaler("cpu", enabled=False))
        for name, watcher in (
            ("scale", self._scale),
            ("unscale_", self._unscale),
            ("step", self._scaler_step),
            ("update", self._update),
        ):
            for owner in {GradScaler, definer(scaler, name)}:
                yield owner, name, watcher
        # Every function that clips calls it, under any name and whenever the loop imported that function.
        yield clip_grad, "_group_tensors_by_device_and_dtype", self._clip
        for owner in {nn.Module, definer(type(self.watched.model), "zero_grad")}:
            yield owner, "zero_grad", self._zero_grad
        yield definer(type(self.watched.optimizer), "zero_grad"), "zero_grad", self._zero_grad
        if self.watched.scheduler is not None:
            yield definer(type(self.watched.scheduler), "step"), "step", self._schedule

    def _zero_grad(self, call: Call) -> Watching:
        ours = self._is_ours(call.args[0])
        if ours:
            self.timeline.settle()
        yield
        if ours:
            self.timeline.tell(Event.ZERO_GRAD)

    def _is_ours(self, owner: object) -> bool:
        """Return whether ``owner`` is the watched model or optimizer, or a framework's wrapper around it."""
        if isinstance(owner, nn.Module):
            return any(module is self.watched.model for module in owner.modules())
        return unwrapped(owner, "optimizer") is self.watched.optimizer

    def _scale(self, call: Call) -> Watching:
        if self.watched.scaler is None and not self.paused:
            self.watched.scaler = call.args[0]
        yield

    def _differentiate(self, call: Call) -> Watching:
        inputs, into_grad = inputs_of(call.args, call.kwargs)
        reached = self._reached(call.args[0], inputs, into_grad)
        if reached == Reach.NO:
            yield
            return
        timeline = self.timeline
        timeline.settle()
        at = at_forward(self.watched, call.args[0], first=timeline.microbatch == 0)
        if reached == Reach.YES:
            timeline.tell(Event.FORWARD, at)
        else:
            forward = timeline.look_for_later(Event.FORWARD, at)
        before = None if into_grad and reached == Reach.YES else GradientsBefore(self.watched)
        result = yield
        if before is not None and not into_grad:
            unseen = before.on_host and self._adds_nothing(inputs, result)  # on a GPU, PyTorch counts its writes
            timeline.wait_for_gradients(None if unseen else before)
            return
        if before is not None:
            if not before.were_written():
                return
            timeline.records.add(forward)
        if world_size() > 1:
            timeline.wait_for_gradients(None)
        else:
            timeline.accumulated()

    def _reached(self, roots: Any, inputs: Sequence[Any], into_grad: bool) -> Reach:
        """Return whether a backward concerns this loop. One inside another, or of a different model, does not."""
        if self.paused or torch._C._current_graph_task_id() != -1:
            return Reach.NO
        trained = self.watched.trained()
        if inputs:  # other leaves of the graph get no gradient
            return Reach.NO if reach(roots, trained & {id(x) for x in inputs}) != Reach.YES else Reach.YES
        if not into_grad:
            return Reach.NO
        # From forward to backward, parameters of the model may replace the trained ones, as FSDP's do.
        found = reach(roots, trained | self.watched.of_model())
        self.lacks.backwards[found] += 1
        return found

    def _adds_nothing(self, inputs: Sequence[Any], result: Sequence[Any]) -> bool:
        """Return whether adding the gradients in ``result`` changes no bit.

        If so, it cannot be seen whether the loop added them.
        """
        trained = self.watched.trained()
        return all(
            type(p.grad) is type(g) is Tensor
            and p.grad.layout == g.layout == torch.strided
            and same_bits(p.grad + g, p.grad)
            for p, g in zip(inputs, result, strict=True)
            if g is not None and id(p) in trained
        )

    def _unscale(self, call: Call) -> Watching:
        if not self._is_ours(call.get(1, "optimizer")):
            yield
            return
        self.timeline.settle()  # also if the scaler is disabled: a clip by hand may follow
        yield
        if call.args[0].is_enabled():
            self.timeline.tell(Event.UNSCALED, live_gradients(self.watched))

    def _clip(self, call: Call) -> Watching:
        """Record a clip of the watched gradients by name only, without values: its effect is still to come."""
        caller = sys._getframe()
        while caller.f_back and caller.f_globals is not vars(clip_grad):
            caller = caller.f_back
        norm_alone = caller.f_code.co_name == "_get_total_norm"
        if not norm_alone and self._may_clip_ours():
            ours = {id(p.grad) for p in self.watched.parameters.values() if p.grad is not None}
            if any(id(gradient) in ours for group in call.args[0] for gradient in group):
                self.timeline.settle()
                self.timeline.tell(Event.CLIP)
        yield

    def _may_clip_ours(self) -> bool:
        """Return whether the running clip may be one of the watched gradients.

        If it is not, nothing of ours is read: another thread may be writing our gradients right now, and to read one at
        that moment can crash the process.
        """
        given, ours = parameters_to_clip(), set(map(id, self.watched.parameters.values()))
        return given is None or any(id(p) in ours for p in given)

    def _scaler_step(self, call: Call) -> Watching:
        ours = self._is_ours(call.get(1, "optimizer"))
        before = self.timeline.step
        if ours:
            self.timeline.settle()
            if call.args[0].is_enabled():
                self.timeline.tell(Event.SCALER_STEP)
        yield
        if ours and self.timeline.step == before:
            self.timeline.tell(Event.READY, at_ready(self.watched))
            self.timeline.stepped(Event.SKIP)

    def step_begins(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record what the watched optimizer is about to read; a hook that runs before any optimizer's step."""
        if optimizer is self.watched.optimizer:
            around = stepping()
            self.lacks.composed |= {id(other) for other in around if other is not optimizer}
            if not is_nested(optimizer, around) and not takes_closure(args, kwargs):
                self.timeline.be_ready()

    def step_ends(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Record what the watched optimizer has written; a hook that runs after any optimizer's step."""
        around = stepping()
        if optimizer is not self.watched.optimizer:
            if not self.paused and not any(other is self.watched.optimizer for other in around):
                self.lacks.step_of(optimizer, self.watched)
            return
        if is_nested(optimizer, around):
            return
        if takes_closure(args, kwargs):
            self.timeline.be_ready()  # only now is the last call of the closure certain to be over
        self.timeline.stepped(Event.STEP)

    def _update(self, call: Call) -> Watching:
        yield
        scaler: GradScaler = call.args[0]
        if scaler is self.watched.scaler and scaler.is_enabled():
            self.timeline.tell(Event.UPDATE)

    def _schedule(self, call: Call) -> Watching:
        yield
        if call.args[0] is self.watched.scheduler:
            self.timeline.tell(Event.SCHEDULE)
