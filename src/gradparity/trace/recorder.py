"""A loop watched from outside: what PyTorch's hooks, and a few patches, show of it, put into the order of a step.

Nothing is written to any tensor and no random number is drawn, so the loop computes the bits that it would compute
unwatched. What a loop does without PyTorch's help, a clip written by hand for one, needs no hook: its effect is seen
when the optimizer reads the gradients.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad

from gradparity.parity.state import Part
from gradparity.trace.fingerprint import Printed, printed
from gradparity.trace.group import ranks
from gradparity.trace.on_host import on_host
from gradparity.trace.patch import definer, wrapped
from gradparity.trace.record import Event, Record
from gradparity.trace.seen import (
    Seen,
    Watched,
    at_accumulated,
    at_end,
    at_forward,
    at_ready,
    at_stepped,
    gradients,
    unwrapped,
)

Fingerprints: TypeAlias = dict[Part, dict[str, Printed]]


class Recorder:
    """Follows one loop, and hands on a record of each event with the live values behind it."""

    def __init__(self, watched: Watched, write: Callable[[Record, Seen], None]) -> None:
        self.watched = watched
        self.write = write
        self.step = self.microbatch = 0
        self._ready = False
        """Whether this step's gradients were seen as the optimizer reads them."""
        self._deaf = False
        """While a backward is under way, in which checkpointing starts others, and while :meth:`paused`."""
        self._over = False
        """Whether the watching has ended; another thread's backward may go on for longer."""
        self._awaited: Fingerprints | None = None
        """The gradients before a backward that was not yet looked for in ``p.grad``: an ``autograd.grad``, whose result
        is wired in later, or any on several ranks, where it may be exchanged later."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch everything that runs in the block; afterwards every hook and patch is gone."""
        optimizer, scheduler = self.watched.optimizer, self.watched.scheduler
        self._over = False
        with ExitStack() as stack:
            stack.callback(self._end)
            for owner, name, wrapper in (
                # The one function through which .backward(), autograd.backward and autograd.grad all go.
                (torch.autograd, "_engine_run_backward", self._differentiate),
                (GradScaler, "scale", self._scale),
                (GradScaler, "unscale_", self._unscale),
                (GradScaler, "step", self._scaler_step),
                (GradScaler, "update", self._update),
                # Looked up inside clip_grad_norm_, so a name that the loop has imported leads here too.
                (clip_grad, "_clip_grads_with_norm_", self._clip),
                (clip_grad, "clip_grad_value_", self._clip),
                (nn.utils, "clip_grad_value_", self._clip),
                (definer(type(optimizer), "zero_grad"), "zero_grad", self._zero_grad),
                (nn.Module, "zero_grad", self._zero_grad),
                # No hook: that would be in every copy of the model, and in the file of torch.save(model).
                (type(self.watched.model), "__call__", self._forward),
            ):
                stack.enter_context(wrapped(owner, name, wrapper))
            if scheduler is not None:
                stack.enter_context(wrapped(definer(type(scheduler), "step"), "step", self._schedule))
            for handle in (
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
            ):
                stack.callback(handle.remove)
            yield
            self._settle()
            self._tell(Event.END, at_end(self.watched))

    def _end(self) -> None:
        self._over = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take no notice of what another loop, with a model and optimizer of its own, does in the block."""
        self._deaf = True
        try:
            yield
        finally:
            self._deaf = False

    # What PyTorch calls, in the order of a step.

    def _zero_grad(self, zero_grad: Callable[..., Any], owner: object, *args: Any, **kwargs: Any) -> None:
        if not self._is_ours(owner):
            zero_grad(owner, *args, **kwargs)
            return
        self._settle()
        zero_grad(owner, *args, **kwargs)
        self._tell(Event.ZERO_GRAD)

    def _is_ours(self, owner: object) -> bool:
        """Whether ``owner`` is the watched model or optimizer, or a framework's wrapper around it."""
        if isinstance(owner, nn.Module):
            return any(module is self.watched.model for module in owner.modules())
        return unwrapped(owner, "optimizer") is self.watched.optimizer

    def _forward(self, call: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if module is self.watched.model:
            self._settle()
        return call(module, *args, **kwargs)

    def _scale(self, scale: Callable[..., Any], scaler: GradScaler, *args: Any, **kwargs: Any) -> Any:
        if self.watched.scaler is None and not self._deaf:
            self.watched.scaler = scaler
        return scale(scaler, *args, **kwargs)

    def _differentiate(self, run: Callable[..., Any], roots: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = args[3] if len(args) > 3 else kwargs.get("inputs", ())
        into_grad = kwargs.get("accumulate_grad", False)
        ours = {id(p) for group in self.watched.optimizer.param_groups for p in group["params"]} if inputs else set()
        concerns_us = any(id(x) in ours for x in inputs) if inputs else into_grad
        if self._deaf or not concerns_us:
            return run(roots, *args, **kwargs)
        self._settle()
        self._tell(Event.FORWARD, at_forward(self.watched, roots, first=self.microbatch == 0))
        if not into_grad:
            self._awaited = fingerprints(gradients(self.watched))
            return run(roots, *args, **kwargs)
        self._deaf = True
        try:
            result = run(roots, *args, **kwargs)
        finally:
            self._deaf = False
        if ranks() > 1:
            self._awaited = {}  # not what there is, so looked at in any case
        else:
            self._accumulated()
        return result

    def _unscale(self, unscale: Callable[..., Any], scaler: GradScaler, optimizer: Any, *rest: Any) -> None:
        if optimizer is not self.watched.optimizer:
            unscale(scaler, optimizer, *rest)
            return
        self._settle()  # of a scaler that is switched off too: what follows may be a clip by hand
        unscale(scaler, optimizer, *rest)
        if scaler.is_enabled():
            self._tell(Event.UNSCALED, gradients(self.watched))

    def _clip(self, clip: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._deaf:
            return clip(*args, **kwargs)
        self._settle()
        result = clip(*args, **kwargs)
        self._tell(Event.CLIP)
        return result

    def _scaler_step(self, step: Callable[..., Any], scaler: GradScaler, optimizer: Any, *args: Any, **kw: Any) -> Any:
        if optimizer is not self.watched.optimizer:
            return step(scaler, optimizer, *args, **kw)
        self._settle()
        before = self.step
        result = step(scaler, optimizer, *args, **kw)
        if self.step == before:
            self._tell(Event.READY, at_ready(self.watched))
            self._stepped(Event.SKIP)
        return result

    def _before_step(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The gradients are ready now; or, of an optimizer that is given a closure, when that has run."""
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        self._ready = False
        if closure is None:
            self._be_ready()
            return None

        def watched() -> Any:
            loss = closure()
            self._be_ready()
            return loss

        return (args[0], watched), {name: value for name, value in kwargs.items() if name != "closure"}

    def _be_ready(self) -> None:
        if not self._ready:
            self._settle()
            self._tell(Event.READY, at_ready(self.watched))
            self._ready = True

    def _after_step(self, *_: Any) -> None:
        self._stepped(Event.STEP)

    def _update(self, update: Callable[..., Any], scaler: GradScaler, *args: Any, **kwargs: Any) -> None:
        update(scaler, *args, **kwargs)
        if scaler is self.watched.scaler and scaler.is_enabled():
            self._tell(Event.UPDATE)

    def _schedule(self, step: Callable[..., Any], scheduler: object, *args: Any, **kwargs: Any) -> Any:
        result = step(scheduler, *args, **kwargs)
        if scheduler is self.watched.scheduler:
            self._tell(Event.SCHEDULE)
        return result

    # Where in the training that is.

    def _settle(self) -> None:
        """Before anything new: what a loop has wired into ``p.grad`` by hand is there now."""
        if self._awaited is not None:
            before, self._awaited = self._awaited, None
            if fingerprints(gradients(self.watched)) != before:
                self._accumulated()

    def _accumulated(self) -> None:
        self._tell(Event.ACCUMULATED, at_accumulated(self.watched))
        self.microbatch += 1

    def _stepped(self, event: Event) -> None:
        self._tell(event, at_stepped(self.watched))
        self.step += 1
        self.microbatch = 0

    def _tell(self, event: Event, seen: Seen | None = None) -> None:
        if self._over:
            return
        microbatch = self.microbatch if event in (Event.FORWARD, Event.ACCUMULATED) else None
        here = on_host(seen or {})
        self.write(Record(event, self.step, microbatch, fingerprints(here)), here)


def fingerprints(seen: Seen) -> Fingerprints:
    """What is kept of ``seen``."""
    return {part: {name: printed(v) for name, v in values.items()} for part, values in on_host(seen).items()}
