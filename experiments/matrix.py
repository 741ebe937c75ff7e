"""In which combinations of model, precision, optimizer, schedule, clipping and accumulation do the two ways part?

You will see a heatmap of the cells you asked for, in each of which both ways trained in lockstep for five steps.
"Identical" is bit for bit at every phase of every step; a refused cell is one that PyTorch itself cannot run.
"""

import json
import os
from argparse import Namespace, RawDescriptionHelpFormatter
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gradparity.arguments import Parser, exits
from gradparity.board import new_folder, tensorboard_command
from gradparity.config import CandidateName, Device
from gradparity.device import require
from gradparity.errors import UserError
from gradparity.growing import Growing
from gradparity.matrix import board, picture
from gradparity.matrix.cell import AXES, Cell, full, pairwise, product_of
from gradparity.matrix.run import Outcome, Result, run_cells

MOST = 256
"""Processes that one machine may be asked for."""


@exits("matrix")
def main(arguments: Sequence[str] | None = None) -> int:
    console = Console(highlight=False)
    given = parser().parse_args(arguments)
    require(given.device)
    cells = chosen(given)
    folder = new_folder(given.output / "matrix")
    results = run(cells, given, folder / "cells.jsonl", console)
    board.write(folder, results)
    return tell(results, folder, console)


def run(cells: Sequence[Cell], given: Namespace, path: Path, console: Console) -> list[Result]:
    results = []
    clock = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"), TimeRemainingColumn())
    with closing(Growing(path)) as lines, Progress(*clock, console=console, transient=True) as progress:
        found = run_cells(cells, given.processes, given.candidate, given.device)
        for result in progress.track(found, total=len(cells)):
            lines.write(f"{json.dumps(result.as_record())}\n".encode())
            results.append(result)
    return results


def tell(results: Sequence[Result], folder: Path, console: Console) -> int:
    counts = Counter(result.outcome for result in results)
    console.print(picture.LEGEND)
    console.print(picture.table(results))
    reasons = Counter((result.outcome, result.why) for result in results if result.outcome != Outcome.IDENTICAL)
    if reasons:
        table = Table("cells", "outcome", "why", title="What is not identical", title_justify="left")
        for (outcome, why), number in reasons.most_common(20):
            table.add_row(f"{number:,}", outcome, why)
        console.print(table)
    ran = len(results) - counts[Outcome.REFUSED]
    worst = max(result.max_ulp for result in results)
    console.print(
        f"\n[bold]{counts[Outcome.IDENTICAL]:,} of {ran:,} cells are identical both ways[/], "
        f"{sum(result.numbers for result in results):,} numbers compared, at most {worst:,} ULP apart; "
        f"{counts[Outcome.REFUSED]:,} more are refused for a reason that is known."
    )
    console.print(f"Every cell: {folder / 'cells.jsonl'}", soft_wrap=True)
    console.print(f"See it: [bold]{tensorboard_command(folder)}[/]", soft_wrap=True)
    return 0 if ran == counts[Outcome.IDENTICAL] else 1


def chosen(given: Namespace) -> list[Cell]:
    wanted = {axis: values(axis, getattr(given, axis)) for axis in AXES if getattr(given, axis) is not None}
    if not 1 <= given.processes <= MOST:
        raise UserError(f"--processes is {given.processes}; allowed is 1 to {MOST}")
    if not wanted:
        return full() if given.full else pairwise()
    if not given.full:
        return list(product_of(**wanted))
    cells = [cell for cell in full() if all(getattr(cell, axis) in some for axis, some in wanted.items())]
    if not cells:
        raise UserError("--full holds no such cell; leave --full out to get every combination of what you name")
    return cells


def values(axis: str, text: str) -> tuple[object, ...]:
    by_name = {str(value): value for value in AXES[axis]}
    names = list(by_name) if text == "all" else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in by_name:
            raise UserError(f"--{axis} is {name!r}; allowed is all, {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)


def parser() -> Parser:
    made = Parser(
        description=f"{__doc__}\nWithout an axis: a few hundred cells in which any two values of two axes meet. With "
        "some: every combination of what they name, and a default for the others. Several values are parted by commas.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    for axis in AXES:
        made.add_argument(f"--{axis}", help=f"all, {', '.join(map(str, AXES[axis]))}")
    made.add_argument("--full", action="store_true", help="thousands of cells, or those of them with the named values")
    made.add_argument("--candidate", choices=get_args(CandidateName), default="manual", help="what .backward() meets")
    made.add_argument("--device", choices=get_args(Device), default="cpu", help="where both ways are trained")
    made.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="default: one for each core")
    made.add_argument("--output", type=Path, default=Path("runs"), help="where the numbered folder goes")
    return made


if __name__ == "__main__":
    raise SystemExit(main())
