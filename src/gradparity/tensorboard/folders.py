"""Folders for the files of a run, and the command that shows them."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradparity.errors import UserError


def new_folder(parent: Path) -> Path:
    """Make and return the next numbered folder in ``parent``; existing files stay untouched.

    Raises:
        OSError: if the folder cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
    folder = parent / str(max(taken, default=0) + 1)
    folder.mkdir()
    return folder


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Hold an advisory lock on ``folder``; the system releases it when this process ends, even if killed.

    Raises:
        UserError: if another process holds the lock.
    """
    from fcntl import LOCK_EX, LOCK_NB, flock  # here, so that the rest works without fcntl, as on Windows

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"{folder} is being written by another process; wait until it ends, or stop it") from None
    finally:
        os.close(descriptor)


def tensorboard_command(folder: Path) -> str:
    """Return the shell command that shows ``folder``, from the current directory; it needs no activated environment."""
    found = shutil.which("tensorboard")
    program = Path(found or Path(sys.executable).with_name("tensorboard"))
    here = program.name if found else os.path.relpath(program)
    return f"{here} --logdir {shlex.quote(str(folder))} --host localhost"
