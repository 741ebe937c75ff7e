"""The gradients of an optimizer as seen at one event: fingerprints in columns, since few are read one by one."""

from collections.abc import Sequence
from itertools import compress
from typing import overload

from torch import Tensor

from gradparity.trace.arrangement import Hashes
from gradparity.trace.columns import Columns
from gradparity.trace.fingerprint import Fingerprint
from gradparity.trace.gradients_before import Versions, versions_of
from gradparity.trace.late_fingerprints import LateFingerprints


class Look(Sequence[Fingerprint | None]):
    """A look at gradients, one of each parameter; ``None`` where there is none.

    On a GPU, its length is known at once, and reading one item waits for all of them.

    Args:
        gradients: the gradients, in the order of the parameters.
        last: an earlier look, which saves the norms of large gradients that are still the same.
        by: the hash of each, if it is not the one of its device.
    """

    def __init__(self, gradients: Sequence[Tensor | None], last: "Look | None" = None, by: Hashes = None) -> None:
        there = [gradient for gradient in gradients if gradient is not None]
        self.there = [gradient is not None for gradient in gradients]
        by = by and tuple(compress(by, self.there))
        before = last.settle() if last is not None and last.ready() and last.there == self.there else None
        late = LateFingerprints(there, before, by)
        self._found: LateFingerprints | Columns = late
        self.versions = None if late.on_host else versions_of(there)
        """Changes when PyTorch writes to one; ``None`` on the CPU, or if that cannot be seen."""
        self._items: tuple[Fingerprint | None, ...] | None = None

    def ready(self) -> bool:
        """Return whether nothing has to be waited for."""
        return isinstance(self._found, Columns) or self._found.ready()

    def settle(self) -> Columns:
        """Return the fingerprints of the gradients that are there, after a wait for them."""
        if isinstance(self._found, LateFingerprints):
            self._found = self._found.get()
        return self._found

    def get(self) -> "Look":
        """Return the look itself, after a wait for it."""
        self.settle()
        return self

    def items(self) -> tuple[Fingerprint | None, ...]:
        """Return the look as a tuple, after a wait for it."""
        if self._items is None:
            found = iter(self.settle())
            self._items = tuple(next(found) if there else None for there in self.there)
        return self._items

    def is_known_equal(self, other: "Look") -> bool:
        """Return whether both saw the same bits; on a GPU, whether PyTorch has counted no write: that needs no wait."""
        if self.versions is None or (self.ready() and other.ready()):
            return self == other
        return self.versions == other.versions

    def written_since(self, earlier: "Look") -> list[bool]:
        """Return for each gradient whether it was there and has other bits now; on a GPU, whether a write was counted.

        Where PyTorch counts no writes, the bits are waited for.
        """
        if self.versions is None or earlier.versions is None or (self.ready() and earlier.ready()):
            return [a is not None and b is not None and a != b for a, b in zip(earlier, self, strict=False)]
        before, now = (_of_each(look.there, look.versions) for look in (earlier, self))
        return [a is not None and b is not None and a != b for a, b in zip(before, now, strict=False)]

    def __len__(self) -> int:
        return len(self.there)

    @overload
    def __getitem__(self, index: int) -> Fingerprint | None: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Fingerprint | None, ...]: ...
    def __getitem__(self, index: int | slice) -> Fingerprint | tuple[Fingerprint | None, ...] | None:
        return self.items()[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Look):
            return self.there == other.there and self.settle() == other.settle()
        return self.items() == other

    __hash__ = None  # type: ignore[assignment]  # like a list


def _of_each(there: Sequence[bool], versions: Versions | None) -> list[object]:
    """Return the marks of each gradient; ``None`` where there is none."""
    marks = iter(zip(*versions or ((), (), ()), strict=True))
    return [next(marks) if here else None for here in there]
