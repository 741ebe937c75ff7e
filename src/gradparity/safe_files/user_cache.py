"""The user's cache: a folder for files that can be made again, and files there that are written whole or not at all."""

import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

VARIABLE = "GRADPARITY_CACHE"
"""The environment variable that names another folder."""


def cache_folder(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Return the folder, which need not exist: ``$GRADPARITY_CACHE``, else ``gradparity`` in the platform's own place.

    That is ``$XDG_CACHE_HOME`` or ``~/.cache``, on macOS ``~/Library/Caches``, on Windows ``%LOCALAPPDATA%``.
    ``platformdirs`` knows the same places, and more that nothing here needs.

    Raises:
        OSError: if no home folder is known.

    >>> str(cache_folder({"XDG_CACHE_HOME": "/caches"}, "linux"))
    '/caches/gradparity'
    >>> str(cache_folder({"GRADPARITY_CACHE": "/mine", "XDG_CACHE_HOME": "/caches"}))
    '/mine'
    """
    if environment.get(VARIABLE):
        return Path(environment[VARIABLE])
    named = environment.get("LOCALAPPDATA" if platform == "win32" else "XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # the XDG specification says to ignore a relative one
        return Path(named) / "gradparity"
    try:
        home = Path.home()
    except RuntimeError as error:
        raise OSError(str(error)) from None
    return home / ("Library/Caches" if platform == "darwin" else ".cache") / "gradparity"


def write_whole(path: Path, data: bytes) -> None:
    """Write ``data`` over what ``path`` holds, or leave that as it is; create the folder if it is missing.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=path.name, suffix=".partial", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
