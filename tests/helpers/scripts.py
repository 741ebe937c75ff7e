"""Experiments as from the command line, in this process: what takes most of the time of another one is the import of torch.

One test of each way to run one is of a process of its own: on a terminal, and behind a pipe.
"""

import os
import runpy
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def run(script, *arguments, change=lambda names: None, **environment):
    """What became of ``script`` with ``arguments``: its exit code, and what it has printed.

    ``change`` is given the names of the script, to put others in their place.
    """
    out, err = StringIO(), StringIO()
    with patch.dict(os.environ, {"COLUMNS": "120", **environment}), redirect_stdout(out), redirect_stderr(err):
        names = runpy.run_path(str(EXPERIMENTS / script))
        change(names)
        code = names["main"]([str(argument) for argument in arguments])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())
