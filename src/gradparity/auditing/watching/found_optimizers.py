"""The optimizers, scalers and schedulers that were found, and the story of each optimizer."""

from collections import deque
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace
from threading import get_ident
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from gradparity.auditing.events import Backward, GradientLook, LoopEvent, StepMade, What
from gradparity.auditing.facts import OwnLoad, Story
from gradparity.auditing.watching.found_modules import Modules
from gradparity.auditing.watching.late_looks import is_ready, with_all_read
from gradparity.auditing.watching.random_numbers import random_digest
from gradparity.auditing.watching.user_lines import NOWHERE, Line, here
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer, written
from gradparity.trace.snapshot import unwrapped


class Registry:
    """Everything that was found to take part in a training."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules
        self.scalers: dict[int, tuple[GradScaler, Line]] = {}
        """Each scaler by ``id``, with the line that built it; they are held, so that no other gets the ``id``."""
        self.schedulers: list[tuple[int, str, Line]] = []
        self.loads: list[OwnLoad] = []
        self._trainees: dict[int, WatchedOptimizer] = {}
        self._found = 0
        """The number of optimizers found so far: each has a number of its own, though an ``id`` is used again."""
        self._number = 0
        self._late = deque[tuple[Story, int]]()
        """Events with digests that a GPU may still compute, each as a story and a position in it."""

    @property
    def stories(self) -> list[Story]:
        """Return the stories in which anything happened."""
        with suppress(Exception):  # the GPU may be lost
            self._read_late(wait=True)
        for story, position in self._late:
            del story.events[position:]
        self._late.clear()
        return [t.story for t in self._trainees.values() if t.story.events]

    @property
    def events(self) -> int:
        """Return the number of events until now."""
        return self._number

    def trainee(self, optimizer: Optimizer, line: Line = NOWHERE) -> WatchedOptimizer:
        """Return an optimizer as it is watched, from now on if it was not before."""
        known = self._trainees.get(id(optimizer))
        if known is None or known.optimizer() is not optimizer:
            if known is not None:  # its id was used before, by an optimizer that is gone
                self._trainees[-len(self._trainees) - 1] = known
            known = WatchedOptimizer(optimizer, self._found, line)
            for other in self.alive():
                known.hashes.take(known.parameters(), other.hashes.by_id(other.parameters()))
            self._found += 1
            self._trainees[id(optimizer)] = known
            self.modules.optimizer_built(known.parameters())
            if _warms_up(optimizer):
                self.schedulers.append((known.story.number, "its scheduler", line))
        return known

    def alive(self) -> list[WatchedOptimizer]:
        """Return the optimizers that are alive."""
        return [t for t in self._trainees.values() if t.optimizer() is not None]

    def near(self, parameters: Iterable[Any] = ()) -> list[WatchedOptimizer]:
        """Return the optimizers of ``parameters``, and those that no other thread has used last.

        Another thread may write the gradients of the rest right now; to read one at that moment can crash the process.
        """
        given, inside = {id(p) for p in parameters}, torch._C._current_graph_task_id() != -1
        return [  # on a GPU, hooks of a backward run in a thread of autograd's own
            t
            for t in self.alive()
            if inside or t.used_in == get_ident() or not given.isdisjoint(map(id, t.parameters()))
        ]

    def concerned(self, owner: Any) -> list[WatchedOptimizer]:
        """Return the optimizers that a call of ``owner`` concerns: itself, or all with parameters of a module."""
        if isinstance(owner, Optimizer):
            inner = unwrapped(owner, "optimizer")  # Lightning's wrapper is an optimizer that calls none of its own
            return [self.trainee(inner if isinstance(inner, Optimizer) else owner)]
        return self.holding({id(p) for p in owner.parameters()})

    def holding(self, ids: AbstractSet[int]) -> list[WatchedOptimizer]:
        """Return the optimizers that hold one of these parameters, which this thread uses now."""
        found = [t for t in self.alive() if not ids.isdisjoint(map(id, t.parameters()))]
        for trainee in found:
            trainee.used_in = get_ident()
        return found

    def number_of_scaler(self, scaler: GradScaler) -> int:
        """Return the number of a scaler, in the order in which they were found."""
        if id(scaler) not in self.scalers:
            self.scalers[id(scaler)] = scaler, here()  # held, so that no other scaler gets its id
        return list(self.scalers).index(id(scaler))

    def tell(
        self, trainee: WatchedOptimizer, what: What, before: GradientLook, after: GradientLook, line: Line
    ) -> None:
        """Add an event to a story."""
        self._number += 1
        trainee.used_in = get_ident()
        trainee.story.events.append(LoopEvent(what, self._number, line, before, after, random_digest()))
        trainee.story.steps += isinstance(what, StepMade)
        self._late.append((trainee.story, len(trainee.story.events) - 1))
        self._read_late(wait=False)

    def _read_late(self, wait: bool) -> None:
        """Read the digests that are there, or wait for all."""
        while self._late:
            story, position = self._late[0]
            if not wait and not is_ready(story.events[position]):
                return
            story.events[position] = with_all_read(story.events[position])
            self._late.popleft()

    def settle(self, trainee: WatchedOptimizer) -> None:
        """Look at gradients of ``autograd.grad`` that the loop has written since, and complete that event."""
        if trainee.awaited is None:
            return
        position, trainee.awaited = trainee.awaited, None
        event = trainee.story.events[position]
        assert isinstance(event.what, Backward)
        now = trainee.gradients()
        what = replace(event.what, written=written(trainee.expected, now), shared=trainee.shared())
        trainee.story.events[position] = replace(event, what=what, after=now)
        self._late.append((trainee.story, position))

    def settle_all(self) -> None:
        """Settle every optimizer."""
        for trainee in self._trainees.values():
            self.settle(trainee)


def _warms_up(optimizer: Optimizer) -> bool:
    """Return whether a scheduler that was built before has set the rate below its peak, and no step was made yet."""
    scheduled = hasattr(optimizer.step, "_wrapped_by_lr_sched") and not optimizer.state
    return scheduled and any(group.get("initial_lr", 0.0) > group.get("lr", 0.0) for group in optimizer.param_groups)
