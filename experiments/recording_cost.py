"""What does it cost to record a training loop?

You will see the time of one optimizer step: bare, recorded, and watched in two other ways, in turn in one run.
"x 1.03" means that a recorded step takes 3% longer; the size of a trace does not depend on that of the tensors.
"""

import time
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils._debug_mode import DebugMode

import gradparity
from gradparity import build
from gradparity.arguments import Parser, exits
from gradparity.config import Config
from gradparity.errors import UserError
from gradparity.parity.lockstep import Lane
from gradparity.tasks import TASKS
from gradparity.tasks.text import CharTransformer
from gradparity.training import Moment, Phase, Run, Window

Look = Callable[[Moment], None]
Way = Callable[[], AbstractContextManager[Look | None]]

MOST = {"rounds": 1000, "width": 1024, "layers": 64}
"""Of each option; together they make 0.8 billion parameters."""


@exits("recording_cost")
def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="steps of each kind (default: 9)")
    parser.add_argument("--width", type=int, default=256, help="of the transformer, a multiple of 8 (default: 256)")
    parser.add_argument("--layers", type=int, default=8, help="of the transformer (default: 8)")
    given = parser.parse_args(arguments)
    for name, most in MOST.items():
        if not 1 <= getattr(given, name) <= most:
            raise UserError(f"--{name} is {getattr(given, name)}; allowed is 1 to {most}")
    if given.width % 8:
        raise UserError(f"--width is {given.width}; allowed are multiples of 8")
    torch.set_num_threads(1)
    console = Console(highlight=False)

    config = Config(task="transformer", accumulation_steps=1, microbatch_size=16, steps=4 * given.rounds + 1)
    task = replace(TASKS["transformer"](), build=partial(CharTransformer, given.width, 8, given.layers))
    lane, windows = build.lane(config, task, "backward"), build.windows(config, task)
    timed_step(lane, next(windows), nullcontext)  # the first one warms up
    with TemporaryDirectory() as folder:
        ways: dict[str, Way] = {
            "bare": nullcontext,
            "gradparity.record": partial(recording, lane.run, Path(folder)),
            "clone, assert_close(rtol=0, atol=0)": partial(cloning, lane.run),
            "DebugMode.log_tensor_hashes": hashing,
        }
        seconds = {name: list[float]() for name in ways}
        for turn in track(range(given.rounds), description="steps", console=console, transient=True):
            for name, way in ways.items():
                if way is not hashing or turn % 4 == 0:  # that one takes many times as long
                    seconds[name].append(timed_step(lane, next(windows), way))
        traces = [path.stat().st_size for path in Path(folder).glob("*/trace.jsonl")]

    count = sum(p.numel() for p in lane.run.parameters) / 1e6
    console.print(f"A transformer of {count:.1f}M parameters, fp32, one thread, {given.rounds} rounds in turn:")
    table = Table("a step", "ms", "x bare", "from", "to")
    bare = median(seconds["bare"])
    for name, found in seconds.items():
        figures = (f"{figure / bare:.3f}" for figure in (median(found), min(found), max(found)))
        table.add_row(name, f"{median(found) * 1e3:.0f}", *figures)
    console.print(table)
    recorded, hashed = (
        median(seconds[name]) / bare - 1 for name in ("gradparity.record", "DebugMode.log_tensor_hashes")
    )
    console.print(
        f"Recording takes {recorded:.1%} of a step and {max(traces) / 1e3:.0f} kB of disk. "
        f"DebugMode's hashes take {hashed:.0%} of a step, {hashed / recorded:.0f} times as much.",
        soft_wrap=True,
    )
    return 0


def timed_step(lane: Lane, window: Window[Any], way: Way) -> float:
    """Seconds of one step, watched in one way; what comes before and after it is not counted."""
    with way() as look:
        began = time.perf_counter()
        for moment in lane.step(lane.run, window):
            if look is not None:
                look(moment)
        return time.perf_counter() - began


@contextmanager
def recording(run: Run, folder: Path) -> Iterator[None]:
    with gradparity.record(run.model, run.optimizer, folder / str(time.perf_counter_ns()), scheduler=run.scheduler):
        yield


@contextmanager
def cloning(run: Run) -> Iterator[Look]:
    """As one would write it by hand: at each phase a copy of what it changes, compared without tolerance."""

    def look(moment: Moment) -> None:
        if moment.phase in (Phase.ACCUMULATED, Phase.CLIPPED):
            tensors = [p.grad for p in run.parameters if p.grad is not None]
        elif moment.phase == Phase.STEPPED:
            states = (value for state in run.optimizer.state.values() for value in state.values())
            tensors = [*(p.detach() for p in run.parameters), *states]
        else:
            return
        torch.testing.assert_close([t.clone() for t in tensors], tensors, rtol=0, atol=0)

    yield look


@contextmanager
def hashing() -> Iterator[None]:
    with DebugMode(), DebugMode.log_tensor_hashes():
        yield


if __name__ == "__main__":
    raise SystemExit(main())
