"""Startup time of the command and the package, compared with ``import torch``, which they need."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rich.table import Table

from gradparity.studies.benchmark.clock import Spread, in_turn, spread, timed
from gradparity.studies.benchmark.drawing import FEW, Bar, cost_table, in_words, part_result
from gradparity.studies.result import Result

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


def measure_startup(full: bool, rounds: int, bar: Bar) -> Result:
    """Measure the startup time."""
    rounds = min(rounds, FEW)
    found = starts(rounds, bar("imports", rounds))
    return part_result(
        "imports", _sentence(found), "Each module is imported when it is needed.", [_table(found)], None, found
    )


def starts(rounds: int, tick: Callable[[], object]) -> list[Start]:
    """Measure each program in a new process."""
    seconds = in_turn([timed(name, partial(_run, code)) for name, code in STARTS.items()], rounds, tick)
    torch = seconds[TORCH]
    return [
        Start(name, spread(found), spread([one - base for one, base in zip(found, torch, strict=True)]))
        for name, found in seconds.items()
    ]


def _run(code: str) -> None:
    """Run one program until it exits."""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def _sentence(found: list[Start]) -> str:
    """Return the result in one sentence."""
    most = max(
        (one for one in found if one.what in ("import gradparity", "gradparity --help")),
        key=lambda one: one.above.median,
    )
    return f"To start, gradparity takes {max(most.above.median, 0):.2f} s more than torch ({most.what})."


def _table(found: Sequence[Start]) -> Table:
    """Tabulate the seconds until a program has started."""
    table = cost_table("Starting a new Python", "", "s", "s above import torch")
    for one in found:
        table.add_row(one.what, in_words(one.seconds), in_words(one.above))
    return table
