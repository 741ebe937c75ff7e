"""Where a run's files go, and what to type to see them."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gradparity.errors import UserError


def new_folder(parent: Path) -> Path:
    """The next numbered folder in ``parent``, made here; nothing that is there is touched.

    Raises:
        OSError: if it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
    folder = parent / str(max(taken, default=0) + 1)
    folder.mkdir()
    return folder


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for it out of ``folder``; the system lets it go with this one, even if killed.

    Raises:
        UserError: if another process is in there.
    """
    from fcntl import LOCK_EX, LOCK_NB, flock  # where there is none, as on Windows, the rest can be used

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"{folder} is being written by another process; let it end, or stop it") from None
    finally:
        os.close(descriptor)


def tensorboard_command(folder: Path) -> str:
    """What to type to see ``folder``, from the current directory, whether or not the environment is activated."""
    found = shutil.which("tensorboard")
    program = Path(found or Path(sys.executable).with_name("tensorboard"))
    here = program.name if found else os.path.relpath(program)
    return f"{here} --logdir {shlex.quote(str(folder))} --host localhost"
