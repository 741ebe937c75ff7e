"""One hash over the contents of several tensors: faster than a fingerprint each."""

from collections.abc import Iterable, Sequence

import xxhash
from torch import Tensor

from gradparity.parity.bits import bits
from gradparity.trace.arrangement import Hashes, arrangement_if_simple, arrangement_of
from gradparity.trace.digest import buffer_of, in_order
from gradparity.trace.late_fingerprints import LateFingerprints


class LateHash:
    """A hash over the contents of several tensors on a GPU. Reading its text waits for the GPU."""

    def __init__(self, tensors: Sequence[Tensor], more: str = "", by: Hashes = None) -> None:
        self._late, self._more = LateFingerprints(tensors, by=by), more
        self._text = ""

    def ready(self) -> bool:
        """Return whether nothing has to be waited for."""
        return bool(self._text) or self._late.ready()

    def get(self) -> str:
        """Return the text, after a wait for it."""
        if not self._text:
            self._text = xxhash.xxh3_128_hexdigest(self._late.get().digests.encode()) + self._more
        return self._text

    __str__ = get


def late_hash_of_all(tensors: Iterable[Tensor], more: str = "", by: Hashes = None) -> str | LateHash:
    """Return one hash over the contents of several tensors, whose order matters. No norms are computed.

    On a GPU, the result is a :class:`LateHash`.

    Args:
        tensors: tensors of any kind.
        more: appended to the hash.
        by: the hash of each, if it is not the one of its device.
    """
    given, content = list(tensors), xxhash.xxh3_128()
    arrangement = arrangement_if_simple(given, by)
    if arrangement is None or arrangement.on_devices:
        late = LateHash(given, more, by)
        return str(late) if late.ready() else late
    if by is not None:  # tensors on a GPU are read in the order in which they were read on the CPU
        given = [tensor.detach().cpu() for tensor in given]
        arrangement = arrangement_of(given, by)
    for positions, _ in arrangement.together:
        content.update(buffer_of([given[i] for i in positions]).numpy().data)
    for i in arrangement.alone:  # in logical order, so that another memory format is no other content
        for some in in_order(given[i].detach()):
            content.update(bits(some).numpy().data)
    return content.hexdigest() + more
