"""Does a loop that I wrote myself make the updates of the reference step?

You will see two hand-written loops recorded from outside, in two lines each, and compared with the reference's trace.
One is correct although it looks different; for the other you see the first difference.
"""

import shlex
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console
from torch import nn
from torch.nn.utils import clip_grad_norm_

import gradparity
from gradparity import training
from gradparity.cli.diff import to_board
from gradparity.parity import report
from gradparity.parity.random_stream import RandomStream
from gradparity.studies import experiment, tasks
from gradparity.studies.experiment import Finished
from gradparity.studies.result import Result
from gradparity.studies.tasks import Batch, count
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import ClipConfig, Config
from gradparity.tensorboard import new_folder
from gradparity.trace.report import print_difference
from gradparity.trace.trace_file import read
from gradparity.training import Run

CONFIG = Config(task="transformer", precision="fp32", accumulation_steps=3, clip=ClipConfig(by="norm", threshold=0.5))


def trained(run: Run) -> list[nn.Parameter]:
    """In the optimizer's order, as in the reference: in a different one, their norm may round differently."""
    return [p for group in run.optimizer.param_groups for p in group["params"]]


def reference(run: Run, batches: Sequence[Batch]) -> None:
    for window in training.windows(batches, 3, count):
        for _ in training.train_step(run, window):
            pass


def right(run: Run, batches: Sequence[Batch]) -> None:
    """As people write it: one loop over microbatches, a counter, gradients emptied after the step."""
    for i, batch in enumerate(batches):
        tokens = sum(count(b) for b in batches[i // 3 * 3 : i // 3 * 3 + 3])
        (run.loss(run.model, batch) / tokens).backward()
        if i % 3 == 2 or i == len(batches) - 1:
            clip_grad_norm_(trained(run), 0.5)
            run.optimizer.step()
            run.optimizer.zero_grad()
            run.scheduler.step()


def wrong(run: Run, batches: Sequence[Batch]) -> None:
    """The same, but with a mean of means: a short microbatch weighs as much as a long one."""
    for i, batch in enumerate(batches):
        (run.loss(run.model, batch) / count(batch) / 3).backward()
        if i % 3 == 2 or i == len(batches) - 1:
            clip_grad_norm_(trained(run), 0.5)
            run.optimizer.step()
            run.optimizer.zero_grad()
            run.scheduler.step()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("watch_a_loop", __doc__)
    return experiment.run("watch_a_loop", partial(parser.parse_args, arguments), watch_loops)


def watch_loops(given: Namespace, console: Console) -> Finished:
    folder = new_folder(given.output / "watch_a_loop")
    torch.set_num_threads(1)
    loops = {"reference": reference, "right": right, "wrong": wrong}
    with experiment.progress(given.quiet) as progress:
        for name, loop in progress.track(loops.items(), description="loops"):
            watch(loop, folder / name)
    verdicts = {}
    for name in ("right", "wrong"):
        ours, theirs = read(folder / "reference"), read(folder / name)
        found = to_board(folder / "tensorboard" / name, ours, theirs, title=name)
        console.print(f"[bold]The loop called {name}[/]")
        print_difference(found, console)
        console.print()
        verdicts[name] = found.verdict
    shown = " ".join(shlex.quote(str(folder / name)) for name in ("reference", "wrong"))
    console.print(f"The same from the command line: [bold]gradparity diff {shown}[/]", soft_wrap=True)
    result = Result(
        sentence=report.parity_sentence(verdicts, "hand-written loops are the reference, bit for bit"),
        holds=verdicts["right"].parity and not verdicts["wrong"].parity,
    )
    return Finished(result, folder / "tensorboard", "Time Series and Text")


def watch(loop: Callable[[Run, Sequence[Batch]], None], folder: Path) -> None:
    """Run a loop from the same start as the others, and record it."""
    task = tasks.TASKS["transformer"]()
    run = build.lane(CONFIG, task, "backward").run
    batches = list(islice(tasks.shuffled(task.train, 8, torch.Generator().manual_seed(0)), 11))
    with RandomStream(0).active(), gradparity.record(run.model, run.optimizer, folder, full=True, strict=True):
        loop(run, batches)


if __name__ == "__main__":
    raise SystemExit(main())
