"""Processes for TrainParity that start with torch already imported.

TrainParity starts seven processes for one check, and each would spend seconds on the same imports. Here they are forked
from a server that has imported everything. Each is still a fresh process, in which nothing has been trained.
"""

import os
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from runpy import run_module
from types import ModuleType, SimpleNamespace
from typing import IO, Any

CONTEXT = get_context("forkserver")


class Child:
    """The part of ``subprocess.Popen`` that TrainParity uses, for ``python -m MODULE ARGUMENTS``."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
        text: bool = True,
    ) -> None:
        paths = [file.name if file else os.devnull for file in (stdout, stderr)]
        self._process = CONTEXT.Process(target=run, args=(list(command), str(cwd), dict(env), *paths))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Return the exit code, or ``None`` while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return :attr:`returncode`."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until the process ends.

        Raises:
            subprocess.TimeoutExpired: if it still runs after ``timeout`` seconds.
        """
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("a child", timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()


def run(command: list[str], cwd: str, env: dict[str, str], stdout: str, stderr: str) -> None:
    """Run ``command`` in the child process, with its working directory, environment and output files.

    Raises:
        ValueError: if ``command`` is not this Python with ``-m``.
    """
    python, dash_m, module, *arguments = command
    if (python, dash_m) != (sys.executable, "-m"):
        raise ValueError(f"{command} is not this Python with -m")
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [module, *arguments]
    with open(stdout, "w") as out, redirect_stdout(out), open(stderr, "w") as err, redirect_stderr(err):
        try:
            run_module(module, run_name="__main__", alter_sys=True)
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def run_to_its_end(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float, **_: Any) -> Child:
    """Run a command to its end: the part of ``subprocess.run`` that TrainParity uses."""
    child = Child(command, cwd=cwd, env=env)
    child.wait(timeout)
    return child


@contextmanager
def instead_of_subprocess(*modules: ModuleType) -> Iterator[None]:
    """Let ``modules`` start their processes from the forkserver."""
    CONTEXT.set_forkserver_preload(["gradparity.studies.peers.preloaded"])
    mine = SimpleNamespace(Popen=Child, run=run_to_its_end, TimeoutExpired=subprocess.TimeoutExpired)
    theirs = [module.__dict__["subprocess"] for module in modules]
    for module in modules:
        module.__dict__["subprocess"] = mine
    try:
        yield
    finally:
        for module, its in zip(modules, theirs, strict=True):
            module.__dict__["subprocess"] = its
