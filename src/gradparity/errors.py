"""What the user can mend."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """Something the user gave cannot be used; the message says what, and how to mend it, in one sentence."""

    def __str__(self) -> str:
        """The message on one line, which a terminal shows as it is: it may quote what a stranger has written."""
        return printable(" ".join(super().__str__().split()))


class DiskError(UserError):
    """A file cannot be written: there is no room, or it may not be."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell in a sentence what the disk refuses in the block; of a write, the system's own error does not say where.

    Raises:
        DiskError: for ``path``, or the file that the system names.
    """
    try:
        yield
    except OSError as error:
        mend = "make room there" if error.errno in FULL else "make it writable, or choose another folder"
        raise DiskError(f"{error.filename or path} cannot be written ({error.strerror}); {mend}") from error


def printable(text: str) -> str:
    r"""``text`` with an escape for each character that is none to be read.

    >>> print(printable("größe\x1b[31m"))
    größe\x1b[31m
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
