"""The order of samples that a ``DistributedSampler`` draws: it repeats itself unless ``set_epoch`` is called."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DistributedSampler

from gradparity.auditing.watching.user_lines import Line, here
from gradparity.trace.harmless_hooks import Call, Watching


@dataclass(frozen=True)
class Pass:
    """A pass of a ``DistributedSampler`` over its data."""

    sampler: int
    seed: int
    epoch: int
    shuffles: bool
    after: int
    """The number of the last event before it."""
    line: Line


class SamplerWatcher:
    """A watcher of passes.

    Args:
        events: returns the number of events until now.
    """

    def __init__(self, events: Callable[[], int]) -> None:
        self.passes: list[Pass] = []
        self._samplers: list[Any] = []  # held, so that no other gets the id of one
        self._events = events

    def places(self) -> Iterator[tuple[Any, str, Callable[[Call], Watching]]]:
        """Yield the watched function: its owner, its name, and its watcher."""
        yield DistributedSampler, "__iter__", self._pass

    def _pass(self, call: Call) -> Watching:
        sampler = call.args[0]
        if not any(sampler is known for known in self._samplers):
            self._samplers.append(sampler)
        number = next(i for i, known in enumerate(self._samplers) if known is sampler)
        shuffles, epoch, seed = bool(sampler.shuffle), int(sampler.epoch), int(sampler.seed)
        self.passes.append(Pass(number, seed, epoch, shuffles, self._events(), here()))
        yield
