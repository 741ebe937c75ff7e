"""In which combinations of model, precision, optimizer, schedule, clipping and accumulation do the two ways differ?

You will see a heatmap of the cells that you choose; in each, both ways train in lockstep for five steps.
"Identical" means bit for bit at every phase of every step; PyTorch itself cannot run a refused cell.
"""

import json
from argparse import Namespace
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial

from rich.console import Console
from rich.text import Text

from gradparity.safe_files.append_only import AppendOnlyFile
from gradparity.studies import experiment
from gradparity.studies.experiment import Finished
from gradparity.studies.matrix.hparams import write_hparams
from gradparity.studies.matrix.result import matrix_result
from gradparity.studies.matrix.run import CellResult, run_cells
from gradparity.studies.matrix.selection import add_options, cells_chosen
from gradparity.studies.result import where_to_see
from gradparity.tensorboard import new_folder


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("matrix", __doc__)
    add_options(parser)
    return experiment.run("matrix", partial(parser.parse_args, arguments), matrix)


def matrix(given: Namespace, console: Console) -> Finished:
    cells = cells_chosen(given)
    folder = new_folder(given.output / "matrix")
    results = list[CellResult]()
    with closing(AppendOnlyFile(folder / "cells.jsonl")) as lines, experiment.progress(given.quiet) as progress:
        found = run_cells(cells, given.processes, given.candidate, given.device)
        for cell in progress.track(found, total=len(cells), description="cells"):
            lines.write(f"{json.dumps(cell.as_record())}\n".encode())
            results.append(cell)
    write_hparams(folder / "cells", results)
    result = matrix_result(results)
    seen: list[Text | str] = [f"\nEvery cell: {folder / 'cells.jsonl'}"]
    if (folder / "cells").exists():
        seen.append(where_to_see(folder / "cells", "HParams, by verdict or by any axis"))
    return Finished(replace(result, terminal=[*result.terminal, *seen]), folder / "glance", "Time Series and Text")


if __name__ == "__main__":
    raise SystemExit(main())
