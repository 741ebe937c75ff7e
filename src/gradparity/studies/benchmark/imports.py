"""Startup time of the command and the package, compared with ``import torch``, which they need."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from gradparity.studies.benchmark.clock import Spread, in_turn, spread, timed

TORCH = "import torch"
STARTS = {
    TORCH: "import torch",
    "import gradparity": "import torch, gradparity",
    "gradparity.record": "import torch, gradparity; gradparity.record",
    "gradparity --help": "import torch; from gradparity.cli.main import main; main(['--help'])",
}


@dataclass(frozen=True)
class Start:
    """A program of one line, and its startup time."""

    what: str
    seconds: Spread
    above: Spread
    """Seconds more than :data:`TORCH` in the same round."""


def starts(rounds: int, tick: Callable[[], object]) -> list[Start]:
    """Measure each program in a new process."""
    seconds = in_turn([timed(name, partial(run, code)) for name, code in STARTS.items()], rounds, tick)
    torch = seconds[TORCH]
    return [
        Start(name, spread(found), spread([one - base for one, base in zip(found, torch, strict=True)]))
        for name, found in seconds.items()
    ]


def run(code: str) -> None:
    """Run one program until it exits."""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def answer(found: list[Start]) -> str:
    """Return the result in one sentence."""
    most = max(
        (one for one in found if one.what in ("import gradparity", "gradparity --help")),
        key=lambda one: one.above.median,
    )
    return f"To start, gradparity takes {max(most.above.median, 0):.2f} s more than torch ({most.what})."
