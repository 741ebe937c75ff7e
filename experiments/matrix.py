"""In which combinations of model, precision, optimizer, schedule, clipping and accumulation do the two ways part?

You will see a heatmap of the cells you asked for, in each of which both ways trained in lockstep for five steps.
"Identical" is bit for bit at every phase of every step; a refused cell is one that PyTorch itself cannot run.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from functools import partial

from rich.console import Console

from gradparity.files.append_only import AppendOnlyFile
from gradparity.studies import experiment
from gradparity.studies.experiment import Answer, say, see
from gradparity.studies.matrix import board, picture, report
from gradparity.studies.matrix.run import Outcome, Result, run_cells
from gradparity.studies.matrix.selection import add_options, cells_chosen
from gradparity.tensorboard import new_folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("matrix", __doc__)
    add_options(parser)
    return experiment.run("matrix", partial(parser.parse_args, arguments), matrix)


def matrix(given: Namespace, console: Console) -> Answer:
    cells = cells_chosen(given)
    folder = new_folder(given.output / "matrix")
    results = list[Result]()
    with closing(AppendOnlyFile(folder / "cells.jsonl")) as lines, experiment.progress(given.quiet) as progress:
        found = run_cells(cells, given.processes, given.candidate, given.device)
        for result in progress.track(found, total=len(cells), description="cells"):
            lines.write(f"{json.dumps(result.as_record())}\n".encode())
            results.append(result)
    board.write(folder, results)

    console.print(picture.LEGEND)
    console.print(picture.table(results))
    if any(result.outcome != Outcome.IDENTICAL for result in results):
        console.print(report.reasons(results))
    say(console, f"\nEvery cell: {folder / 'cells.jsonl'}")
    if folder.joinpath(board.CELLS).exists():
        see(console, folder / board.CELLS, "HParams, by verdict or by any axis")
    return Answer(
        sentence=report.answer(results),
        holds=not any(result.outcome in (Outcome.DIFFERENT, Outcome.RAISED) for result in results),
        folder=folder / board.GLANCE,
        pages="Time Series and Text",
    )


if __name__ == "__main__":
    raise SystemExit(main())
