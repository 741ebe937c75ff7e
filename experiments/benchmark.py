"""What does it cost to wire gradients by hand, to train in lockstep, and to record a training?

You will see times as ratios of works done in turn in one run, with quartiles, memory to the byte, and how both grow.
"1.05" means 5% longer than the same steps unwatched; seconds differ between machines, ratios much less.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from gradparity.benchmark.parts import DEFAULT, PARTS, Found
from gradparity.board import new_folder, tensorboard_command
from gradparity.errors import UserError

MOST = 1000
"""Rounds that one may ask for."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--full", action="store_true", help="all parts, all sizes, more rounds: about a quarter of an hour"
    )
    parser.add_argument(
        "--only", metavar="PART", action="append", help=f"more than once for several: {', '.join(PARTS)}"
    )
    parser.add_argument("--rounds", type=int, help="how often each work is timed (default: 5, or 15 with --full)")
    parser.add_argument(
        "--output", type=Path, default=Path("runs"), help="folder for TensorBoard, pictures and figures"
    )
    parser.add_argument("--quiet", action="store_true", help="only the answers: no progress, no tables")
    given = parser.parse_args(arguments)
    rounds = given.rounds if given.rounds is not None else 15 if given.full else 5
    torch.set_num_threads(1)
    console = Console(highlight=False)
    try:
        names = chosen(given.only, given.full)
        if not 2 <= rounds <= MOST:
            raise UserError(f"--rounds is {rounds}; allowed is 2 to {MOST}")
        folder = new_folder(given.output / "benchmark")
        answers = [measure(name, given.full, rounds, folder, console, given.quiet) for name in names]
    except UserError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"benchmark: {error}; choose a folder that can be written with --output", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmark: stopped; what was written until now stays", file=sys.stderr)
        return 130
    for answer in answers:
        console.print(answer, style="bold", markup=False, soft_wrap=True)
    console.print(f"Pictures and exact figures: {folder}", soft_wrap=True)
    console.print(f"See it under Images: [bold]{tensorboard_command(folder)}[/]", soft_wrap=True)
    return 0


def chosen(names: Sequence[str] | None, full: bool) -> list[str]:
    for name in names or ():
        if name not in PARTS:
            raise UserError(f"--only {name} is no part; the parts are {', '.join(PARTS)}")
    return [name for name in PARTS if (name in names if names else full or name in DEFAULT)]


def measure(name: str, full: bool, rounds: int, folder: Path, console: Console, quiet: bool) -> str:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=quiet) as progress:

        def bar(what: str, ticks: int) -> Callable[[], object]:
            return partial(progress.advance, progress.add_task(what, total=ticks))

        found = PARTS[name](full, rounds, bar)
    keep(name, found, folder)
    if not quiet:
        for table in found.tables:
            console.print(table)
        console.print(f"{found.why}\n", markup=False, soft_wrap=True)
    return found.answer


def keep(name: str, found: Found, folder: Path) -> None:
    with (folder / f"{name}.jsonl").open("x") as lines:
        lines.writelines(json.dumps(asdict(one)) + "\n" for one in found.figures)
    with SummaryWriter(folder / name) as board:
        board.add_text("benchmark/answer", f"{found.answer}\n\n{found.why}")
        if found.figure is not None:
            found.figure.savefig(folder / f"{name}.png")
            board.add_figure(f"benchmark/{name}", found.figure, close=False)


if __name__ == "__main__":
    raise SystemExit(main())
