"""Watchers of the learning rate schedulers' functions."""

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

from torch.optim import Optimizer, lr_scheduler

from gradparity.auditing.events import Schedule
from gradparity.auditing.watching.call_stack import runs_inside
from gradparity.auditing.watching.found_optimizers import Registry
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

    def places(self) -> Iterator[tuple[Any, str, Callable[[Call], Watching]]]:
        """Yield each watched function: its owner, its name, and its watcher."""
        yield lr_scheduler.LRScheduler, "__init__", self._built
        for kind in {lr_scheduler.LRScheduler, *_schedulers_with_a_step()}:
            yield kind, "step", self._step

    def _built(self, call: Call) -> Watching:
        yield
        optimizer = unwrapped(call.get(1, "optimizer"), "optimizer")
        if isinstance(optimizer, Optimizer):
            made = self.known.trainee(optimizer).story.number, type(call.args[0]).__name__, here()
            self.known.schedulers.append(made)

    def _step(self, call: Call) -> Watching:
        yield
        scheduler = call.args[0]
        optimizer = unwrapped(scheduler, "optimizer")
        if isinstance(optimizer, Optimizer) and not runs_inside("step", "_initial_step"):
            count = int(getattr(scheduler, "last_epoch", 0))
            what = Schedule(
                type(scheduler).__name__,
                count,
                rates(optimizer),
                self._numbers.setdefault(scheduler, len(self._numbers)),
                isinstance(scheduler, (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)),
                isinstance(scheduler, lr_scheduler.CosineAnnealingLR) and count > scheduler.T_max,
            )
            self.known.tell(self.known.trainee(optimizer), what, (), (), here())


def _schedulers_with_a_step() -> list[type]:
    kinds = [kind for kind in vars(lr_scheduler).values() if isinstance(kind, type)]
    return [k for k in kinds if issubclass(k, lr_scheduler.LRScheduler) and "step" in vars(k)]
