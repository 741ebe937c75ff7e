"""Records whose fingerprints a GPU still computes: they are written in order, when their fingerprints are there."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from gradparity.trace.events import Record
from gradparity.trace.snapshot import Snapshot
from gradparity.trace.to_cpu import LateSnapshot

MOST_LATE: Final = 64
"""Number of records that may wait for the GPU. If there are more, the loop is far ahead of it, and waits for one."""


class LateRecord(NamedTuple):
    """A record without its values, and the values, which may still be computed."""

    record: Record
    values: LateSnapshot
    seen: Snapshot
    """The live values."""


class LateRecords:
    """Records on their way to ``write``, in order.

    Args:
        write: called with each record, and with the live values behind it unless it may be late.
        late: whether records may be written after the loop has gone on. If not, each is waited for.
    """

    def __init__(self, write: Callable[[Record, Snapshot], None], late: bool) -> None:
        self._write, self._late = write, late
        self._waiting = deque[LateRecord]()

    def add(self, record: LateRecord) -> None:
        """Write all records that are complete, and this one too if nothing has to be waited for."""
        self._waiting.append(record._replace(seen={}) if self._late else record)
        while self._waiting and (not self._late or len(self._waiting) > MOST_LATE or self._waiting[0].values.ready()):
            self._write_first()

    def finish(self) -> None:
        """Write all records, after a wait for their values."""
        while self._waiting:
            self._write_first()

    def _write_first(self) -> None:
        first = self._waiting.popleft()
        try:
            self._write(replace(first.record, parts=first.values.get()), first.seen)
        except BaseException:
            self._waiting.clear()  # with one record lost, those after it would be wrong
            raise
