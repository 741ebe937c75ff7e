"""Where a run's files go, and what to type to see them."""

import os
import shlex
import shutil
import sys
from pathlib import Path


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


def tensorboard_command(folder: Path) -> str:
    """What to type to see ``folder``, from the current directory, whether or not the environment is activated."""
    found = shutil.which("tensorboard")
    program = Path(found or Path(sys.executable).with_name("tensorboard"))
    here = program.name if found else os.path.relpath(program)
    return f"{here} --logdir {shlex.quote(str(folder))} --host localhost"
