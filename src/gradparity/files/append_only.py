"""Files that grow: of a run that is killed, all is there that was written, to the last complete record."""

import os
from pathlib import Path

from gradparity.errors import writing


class Growing:
    """A file that is only appended to. Nothing is held back in a buffer, so nothing is lost with one, or refused late.

    Args:
        path: of a file that is not there yet, or, if it ``goes_on``, may be.

    Raises:
        OSError: if it cannot be opened.
        DiskError: from ``write`` and ``sync``, with its name.
    """

    def __init__(self, path: Path, goes_on: bool = False) -> None:
        self.path = path
        self._file = path.open("ab" if goes_on else "xb", buffering=0)

    def write(self, data: bytes) -> None:
        """Append all of ``data``."""
        with writing(self.path):
            while data:  # a disk that is nearly full takes a part of it
                data = data[self._file.write(data) :]

    def sync(self) -> None:
        """Return when it would survive a power cut."""
        with writing(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """No more writes."""
        self._file.close()
