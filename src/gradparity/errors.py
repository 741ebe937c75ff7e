"""What the user can mend."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_NO_FORM = re.compile(r"(\S+) does not have a deterministic implementation")
_NO_WORKSPACE = "CuBLAS and you have CUDA >= 10.2"


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


def without_deterministic_form(error: BaseException) -> str | None:
    """Return one sentence for the error of an operation that has no deterministic form; ``None`` for any other error.

    It names the operation, and says how to go on.
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
