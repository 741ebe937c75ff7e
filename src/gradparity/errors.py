"""Errors that the user can fix, each as one sentence."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_NO_FORM = re.compile(r"(\S+) does not have a deterministic implementation")
_NO_WORKSPACE = "CuBLAS and you have CUDA >= 10.2"


class UserError(Exception):
    """An input cannot be used; the message says in one sentence what is wrong and how to fix it."""

    def __str__(self) -> str:
        """Return the message on one line, with control characters escaped: it may quote text from an untrusted file."""
        return printable(" ".join(super().__str__().split()))


class DiskError(UserError):
    """A file cannot be written: the disk is full, or permission is missing."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` in the block into one sentence with the path; for a write, the system's error has no path.

    Raises:
        DiskError: for ``path``, or the file that the system names.
    """
    try:
        yield
    except OSError as error:
        advice = "make room there" if error.errno in FULL else "make it writable, or choose another folder"
        raise DiskError(f"{error.filename or path} cannot be written ({error.strerror}); {advice}") from error


def printable(text: str) -> str:
    r"""Return ``text`` with an escape in place of each character that is not printable.

    >>> print(printable("größe\x1b[31m"))
    größe\x1b[31m
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message."""
    try:
        return str(error).strip().split("\n")[0]
    except Exception:
        return "its message cannot be printed"


def in_a_line(error: BaseException) -> str:
    """Return the type of an exception and the first line of its message.

    >>> in_a_line(ValueError("no data"))
    'ValueError: no data'
    """
    message = first_line(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def without_deterministic_form(error: BaseException) -> str | None:
    """Return one sentence for the error of an operation that has no deterministic form; ``None`` for any other error.

    The sentence names the operation and says how to fix it.
    """
    said = str(error)
    if not isinstance(error, RuntimeError):
        return None
    if _NO_WORKSPACE in said:
        return (
            "cuBLAS was used before CUBLAS_WORKSPACE_CONFIG was set, so its results may differ from run to run; "
            "set CUBLAS_WORKSPACE_CONFIG=:4096:8 before Python starts, or use --device cpu"
        )
    if not (found := _NO_FORM.search(said)):
        return None
    operation = found[1].strip("\"'`")
    way = "replace it in the model or loss"
    if "attention" in operation.lower():
        way = "use attention by torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
    return (
        f"{operation} has no deterministic form on this device, so a training does not repeat itself in bits; "
        f"{way}, or use --device cpu"
    )
