"""Reading of untrusted files: only regular files, up to a size limit."""

import errno
import stat
from pathlib import Path
from typing import IO


def open_regular(path: Path, most: int) -> IO[bytes]:
    """Open ``path`` for reading if it is a regular file of ``most`` bytes or less.

    Reading a pipe may block forever, and a device may have no end.

    Raises:
        OSError: if it is not such a file, or cannot be read; its ``strerror`` says why.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if found.st_size > most:
        raise OSError(errno.EFBIG, f"it is larger than {most:,} bytes", str(path))
    return path.open("rb")
