"""Recorder of a loop from outside: it puts the events of PyTorch's hooks, and of a few patches, into step order.

It writes to no tensor and draws no random number, so the loop computes the same bits as without it. An error in the
recorder's code ends the recording, never the training. Some actions of a loop bypass PyTorch, such as a clip written by
hand. They need no hook: their effect is seen when the optimizer reads the gradients.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from gradparity.trace.events import Event, Record
from gradparity.trace.harmless_hooks import Guard
from gradparity.trace.hook_check import require_sight
from gradparity.trace.isolation import warn
from gradparity.trace.late_records import LateRecords
from gradparity.trace.missed_events import Lacks
from gradparity.trace.snapshot import Snapshot, TrainingObjects, at_end
from gradparity.trace.timeline import Timeline
from gradparity.trace.watchers import Watchers
from gradparity.trace.wrapping import wrapped


class Recorder:
    """Follows one loop, and passes on a record of each event with the live values behind it.

    Args:
        watched: the objects that the loop trains with.
        write: called with each record and the values seen. If it raises, the recording ends.
        keeps: whether ``write`` keeps the values. If so, values that it gets late are copied first.
        warns: whether an error that ends the recording is a warning at once. It is in ``lacks`` in any case.
        late: whether ``write`` may be called after the loop has gone on, and without live values. If so, nothing waits
            for a GPU.
    """

    def __init__(
        self,
        watched: TrainingObjects,
        write: Callable[[Record, Snapshot], None],
        keeps: bool = False,
        warns: bool = True,
        late: bool = False,
    ) -> None:
        self.watched = watched
        self._records = LateRecords(write, late)
        self.timeline = Timeline(watched, self._records, keeps)
        self.lacks = Lacks()
        """Notes on events that this recording has not seen."""
        self.warns = warns
        self._guard = Guard(self._failed)
        self._watchers = Watchers(watched, self.timeline, self.lacks)

    @property
    def step(self) -> int:
        """Return the number of optimizer steps seen, made or skipped."""
        return self.timeline.step

    @property
    def fault(self) -> Exception | None:
        """Return the error, in the recorder or in ``write``, that ended the recording; ``None`` if there was none."""
        return self.lacks.fault

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch everything that runs in the block, then remove every hook and patch.

        Raises:
            UserError: before anything is watched, if nothing would be seen on this version of torch.
        """
        require_sight()
        self._guard = Guard(self._failed)
        with ExitStack() as stack:
            stack.callback(self._end)
            for owner, name, watcher in self._watchers.places():
                stack.enter_context(wrapped(owner, name, self._guard.around(watcher)))
            stack.callback(register_optimizer_step_pre_hook(self._before_step).remove)
            stack.callback(register_optimizer_step_post_hook(self._after_step).remove)
            yield
            self._guard.run(self._finish)

    def _finish(self) -> None:
        self.timeline.settle()
        self.timeline.tell(Event.END, at_end(self.watched))
        self._records.finish()
        self.lacks.look_back(self.step, self.watched, self._guard.skipped)

    def _end(self) -> None:
        self._guard.run(self._records.finish)  # if the loop has raised, what it did until then is still to be written
        self._guard.over = True  # another thread's backward may still be running

    def _failed(self, error: Exception) -> None:
        self.lacks.fault = error
        with suppress(Exception):  # records of what happened before the error
            self._records.finish()
        if self.warns:
            warn(f"the recording ends here, the training goes on: {self.lacks.of_fault()}")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Ignore events in the block, where a different loop runs with its own model and optimizer."""
        self._watchers.paused = True
        try:
            yield
        finally:
            self._watchers.paused = False

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's own has no annotations
    def _before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._guard.run(self._watchers.step_begins, optimizer, args, kwargs)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # torch's own has no annotations
    def _after_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._guard.run(self._watchers.step_ends, optimizer, args, kwargs)
