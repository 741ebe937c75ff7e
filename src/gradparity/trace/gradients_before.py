"""The gradients at one moment, kept to see later whether the loop has written to them."""

from collections.abc import Sequence
from operator import attrgetter
from typing import TypeAlias

from torch import Tensor

from gradparity.trace.snapshot import TrainingObjects, live_gradients
from gradparity.trace.to_cpu import LateSnapshot

Versions: TypeAlias = tuple[list[int], list[int], list[int]]


class GradientsBefore:
    """The gradients of a loop at this moment."""

    def __init__(self, watched: TrainingObjects) -> None:
        self._watched = watched
        gradients = _gradients(watched)
        self.on_host = all(gradient.is_cpu for gradient in gradients)
        """True if none is on a GPU, so that reading them waits for nothing."""
        self._versions, self._late = versions_of(gradients), LateSnapshot(live_gradients(watched))

    def were_written(self) -> bool:
        """Return whether any bit of them has changed since, or a gradient was replaced.

        On a GPU, a write that PyTorch has counted is taken for a change: comparing bits would wait for the GPU. If none
        was counted, bits are compared all the same, because PyTorch does not count a write through ``.data``.
        """
        now, versions = LateSnapshot(live_gradients(self._watched)), versions_of(_gradients(self._watched))
        counted = None not in (versions, self._versions) and versions != self._versions
        if counted and not (now.ready() and self._late.ready()):
            return True
        return now.get() != self._late.get()


def _gradients(watched: TrainingObjects) -> list[Tensor]:
    return [p.grad for p in watched.parameters.values() if p.grad is not None]


def versions_of(tensors: Sequence[Tensor]) -> Versions | None:
    """Return what changes when PyTorch writes to any of these tensors; ``None`` if that cannot be seen."""
    try:
        places, versions = map(Tensor.data_ptr, tensors), map(attrgetter("_version"), tensors)
        return list(map(id, tensors)), list(places), list(versions)
    except RuntimeError:  # made in inference mode, or sparse
        return None
