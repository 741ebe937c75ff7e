"""Every cell of a matrix under *HParams* of TensorBoard, to filter and sort by.

Each cell is a separate run, since HParams require it. With more than 40 runs, TensorBoard selects none at first, and
its pages stay empty. So the heatmap and the cells are in separate folders, each to be opened by its own command.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard.summary import hparams

from gradparity.studies.matrix.run import CellResult
from gradparity.tensorboard.events import Events

MOST_RUNS = 1000
"""The most cells that are written, each as a separate run; TensorBoard is slow with more."""


def write_hparams(folder: Path, cells: Sequence[CellResult]) -> None:
    """Write the axes and outcome of each of ``cells``, unless they are more than :data:`MOST_RUNS`."""
    columns = [in_columns(cell) for cell in cells if len(cells) <= MOST_RUNS]
    # TensorBoard filters texts only by the values listed here.
    allowed = {name: sorted({column[name] for column in columns}) for name in (columns[0] if columns else ())}
    for cell, column in zip(cells, columns, strict=False):
        metrics = {"log10 of 1 + ULP": math.log10(1 + cell.max_ulp), "numbers compared": cell.numbers}
        with Events(folder / str(cell.cell)) as writer:
            for summary in hparams(column, metrics, allowed):
                writer.file_writer.add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value)


def in_columns(result: CellResult) -> dict[str, str]:
    """Return a cell's columns for TensorBoard's table, which sorts them by name and shows the first five."""
    cell = result.cell
    first = "" if result.step is None else f"step {result.step}, {result.phase}, {result.part}"
    return {
        "1 verdict": str(result.outcome),
        "2 task": cell.task,
        "3 precision": cell.precision,
        "4 optimizer": cell.optimizer,
        "5 first difference": first or "none",
        "6 K": str(cell.k),
        "7 clip": cell.clip,
        "8 schedule": cell.schedule,
        "9 average": cell.average,
    }
