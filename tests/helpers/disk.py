"""Disks to write to that are full, or may not be written."""

import resource
import subprocess
from contextlib import contextmanager


@contextmanager
def no_file_longer_than(length):
    """In the block; whoever goes on writing is told so by the system, as by a full disk. Files of pytest are shorter."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def mounted(folder, size):
    """A small disk at ``folder``, where this is allowed; yields whether it is, and a way to mount it in other ways."""

    def again(options):
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)

    folder.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    try:
        allowed = subprocess.run(made, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        allowed = False
    try:
        yield again if allowed else None
    finally:
        if allowed:
            subprocess.run(["umount", folder], check=True)
