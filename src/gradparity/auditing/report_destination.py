"""The place that a report goes to, fixed before the script runs: a script may change its folder or close its stderr."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from gradparity.errors import writing

_AT_ONCE = getattr(os, "O_NONBLOCK", 0)
"""Do not wait for a reader; Windows has none of it."""


class Destination:
    """A file, or standard error as it is now.

    Args:
        output: the file; ``None`` for standard error.

    Raises:
        DiskError: if the file cannot be written.
    """

    def __init__(self, output: Path | None) -> None:
        self.output = None if output is None else output.absolute()
        self._stream: TextIO | None = sys.stderr
        self._descriptor: int | None = None
        if self.output is not None:
            with writing(self.output):  # a pipe without a reader is refused: it would block
                os.close(os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _AT_ONCE, 0o666))
        with suppress(OSError, ValueError, AttributeError):  # there may be none, or one without a descriptor
            self._descriptor = os.dup(sys.stderr.fileno())

    @property
    def columns(self) -> int | None:
        """Return the width of the terminal; ``None`` if the report goes to no terminal."""
        if self.output is None and self._descriptor is not None and os.isatty(self._descriptor):
            with suppress(OSError):
                return os.get_terminal_size(self._descriptor).columns
        return None

    def write(self, text: str) -> None:
        """Write the report. An error of standard error is ignored: nobody is there to read it.

        Raises:
            DiskError: if the file cannot be written.
        """
        if self.output is not None:
            with writing(self.output):
                self.output.write_text(text, encoding="utf-8")
            return
        with suppress(OSError, ValueError):
            if self._stream is not None and not self._stream.closed:
                self._stream.flush()
        with suppress(OSError, ValueError):
            if self._descriptor is None and self._stream is not None:
                self._stream.write(text)
            elif self._descriptor is not None:
                with os.fdopen(self._descriptor, "w", errors="backslashreplace", closefd=False) as file:
                    file.write(text)
