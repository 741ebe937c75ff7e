"""The hash function first used for each tensor. CPU and GPU use different ones; after a move, the first is kept."""

from collections.abc import Mapping, Sequence
from operator import attrgetter

from torch import Tensor

from gradparity.trace import arrangement
from gradparity.trace.arrangement import Hashes
from gradparity.trace.digest import Hash


class FirstHashes:
    """Keeps the hash of each tensor, so that one that has moved between the CPU and a GPU is no other content."""

    def __init__(self) -> None:
        self._first: tuple[Hash, ...] = ()

    def of(self, tensors: Sequence[Tensor]) -> Hashes:
        """Return the hash by which each tensor was read at first; ``None`` if each is the one of its device.

        Tensors are the same as before if there are as many.
        """
        now = _hashes_on_devices_of(tensors)
        if len(now) != len(self._first):
            self._first = now
        return None if now == self._first else self._first

    def take(self, tensors: Sequence[Tensor], others: Mapping[int, Hash]) -> None:
        """Take over the hashes by which others have read the same tensors, by ``id``."""
        if not others.keys().isdisjoint(map(id, tensors)):
            self._first = tuple([others.get(id(tensor), arrangement.hash_on(tensor.device)) for tensor in tensors])

    def by_id(self, tensors: Sequence[Tensor]) -> dict[int, Hash]:
        """Return the hash by which each was read at first, by ``id``."""
        return dict(zip(map(id, tensors), self._first, strict=False))


def _hashes_on_devices_of(tensors: Sequence[Tensor]) -> tuple[Hash, ...]:
    devices = list(map(attrgetter("device"), tensors))
    hashes = {device: arrangement.hash_on(device) for device in set(devices)}
    return tuple(map(hashes.__getitem__, devices)) if len(hashes) > 1 else (*hashes.values(),) * len(devices)
