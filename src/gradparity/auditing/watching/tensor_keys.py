"""Numbers for tensors. An ``id`` is used again once its tensor is gone, as between the folds of a cross-validation."""

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor


class TensorKeys:
    """Gives each tensor a number of its own, and keeps none alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._count = 0

    def __call__(self, tensor: Tensor) -> int:
        """Return the number of a tensor, a new one if it was not seen before."""
        known = self._known.get(id(tensor))
        if known is None or known[0]() is not tensor:
            self._count += 1
            known = self._known[id(tensor)] = weakref.ref(tensor), self._count
        return known[1]

    def alive(self) -> list[Tensor]:
        """Return the tensors that have a number and are still there."""
        return [tensor for ref, _ in list(self._known.values()) if (tensor := ref()) is not None]

    @contextmanager
    def without(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Hold no reference to some tensors in the block; each has its number again after it."""
        numbers = [self(tensor) for tensor in tensors]
        for tensor in tensors:
            self._known.pop(id(tensor), None)
        try:
            yield
        finally:
            self._known |= {id(t): (weakref.ref(t), number) for t, number in zip(tensors, numbers, strict=True)}
