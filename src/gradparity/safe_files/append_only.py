"""Append-only files: after a kill, everything that was written is there, up to the last complete record."""

import os
from pathlib import Path

from gradparity.errors import writing


class AppendOnlyFile:
    """A file that is only appended to. It has no buffer, so a kill loses nothing, and a full disk is reported at once.

    Args:
        path: the file, which must not exist unless ``goes_on``.
        goes_on: append to the file if it exists.

    Raises:
        OSError: if the file cannot be opened.
        DiskError: from ``write`` and ``sync``, with the name of the file.
    """

    def __init__(self, path: Path, goes_on: bool = False) -> None:
        self.path = path
        self._file = path.open("ab" if goes_on else "xb", buffering=0)

    def write(self, data: bytes) -> None:
        """Append all of ``data``."""
        with writing(self.path):
            while data:  # a disk that is nearly full takes only a part
                data = data[self._file.write(data) :]

    def sync(self) -> None:
        """Return once all that was written would survive a power cut."""
        with writing(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
