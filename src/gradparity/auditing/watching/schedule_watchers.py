"""Watchers of the learning rate schedulers' functions."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from torch.optim import Optimizer, lr_scheduler

from gradparity.auditing.events import Schedule
from gradparity.auditing.watching.call_stack import runs_inside
from gradparity.auditing.watching.found_optimizers import Registry
from gradparity.auditing.watching.later import later
from gradparity.auditing.watching.user_lines import here
from gradparity.auditing.watching.watched_optimizer import rates
from gradparity.trace.harmless_hooks import Call, Watching
from gradparity.trace.snapshot import unwrapped


class ScheduleWatchers:
    """The watchers of schedulers.

    Args:
        known: the optimizers and what happens to them.
    """

    def __init__(self, known: Registry) -> None:
        self.known = known
        self._numbers: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._next = count()

    def places(self) -> Iterator[tuple[Any, str, Callable[[Call], Watching]]]:
        """Yield each watched function: its owner, its name, and its watcher."""
        yield lr_scheduler.LRScheduler, "__init__", self._built
        for kind in {lr_scheduler.LRScheduler, *_schedulers_with_a_step()}:
            yield kind, "step", self._step

    def _number(self, scheduler: Any) -> int:
        """Return the scheduler's own number, which none gets that comes after it is gone."""
        if scheduler not in self._numbers:
            self._numbers[scheduler] = next(self._next)
        return self._numbers[scheduler]

    def _built(self, call: Call) -> Watching:
        yield
        optimizer = unwrapped(call.get(1, "optimizer"), "optimizer")
        if isinstance(optimizer, Optimizer):
            made = self.known.trainee(optimizer).story.number, type(call.args[0]).__name__, here()
            self.known.schedulers.append(made)

    def _step(self, call: Call) -> Watching:
        scheduler = call.args[0]
        optimizer = unwrapped(scheduler, "optimizer")
        before = rates(optimizer) if isinstance(optimizer, Optimizer) else ()
        yield
        if isinstance(optimizer, Optimizer) and not runs_inside("step", "_initial_step"):
            steps = int(getattr(scheduler, "last_epoch", 0))
            now = rates(optimizer)
            what = Schedule(
                type(scheduler).__name__,
                steps,
                now,
                self._number(scheduler),
                isinstance(scheduler, (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)),
                isinstance(scheduler, lr_scheduler.CosineAnnealingLR) and steps > scheduler.T_max,
                later(_lowered, before, now),
            )
            self.known.tell(self.known.trainee(optimizer), what, (), (), here())


def _lowered(before: Sequence[float], now: Sequence[float]) -> bool:
    return bool(now) and all(b < a for a, b in zip(before, now, strict=False))


def _schedulers_with_a_step() -> list[type]:
    kinds = [kind for kind in vars(lr_scheduler).values() if isinstance(kind, type)]
    return [k for k in kinds if issubclass(k, lr_scheduler.LRScheduler) and "step" in vars(k)]
