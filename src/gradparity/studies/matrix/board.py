"""A matrix in TensorBoard: a heatmap, and every cell under *HParams*, to filter and sort by.

Each cell is a separate run, since HParams require it. With more than 40 runs, TensorBoard selects none at first, and
its pages stay empty. So the heatmap and the cells are in separate folders, each to be opened by its own command.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard.summary import hparams

from gradparity.studies.matrix import report
from gradparity.studies.matrix.picture import figure, glance
from gradparity.studies.matrix.run import Result
from gradparity.tensorboard.events import Events
from gradparity.tensorboard.pages import ANSWER

GLANCE = "glance"
CELLS = "cells"
MOST = 1000
"""The most cells that are written, each as a separate run; TensorBoard is slow with more."""


def write(folder: Path, results: Sequence[Result]) -> None:
    """Write the heatmap of ``results`` and, unless they are more than :data:`MOST`, each one's axes and outcome."""
    with Events(folder / GLANCE / ANSWER) as writer:
        writer.add_figure("1 glance/1 cells by model", glance(results), close=False)
        writer.add_figure("1 glance/2 cells by model and each other axis", figure(results), close=False)
        writer.add_text("1 answer", report.page(results))
    columns = [in_columns(result) for result in results if len(results) <= MOST]
    # TensorBoard filters texts only by the values listed here.
    allowed = {name: sorted({column[name] for column in columns}) for name in (columns[0] if columns else ())}
    for result, column in zip(results, columns, strict=False):
        metrics = {"log10 of 1 + ULP": math.log10(1 + result.max_ulp), "numbers compared": result.numbers}
        with Events(folder / CELLS / str(result.cell)) as writer:
            for summary in hparams(column, metrics, allowed):
                writer.file_writer.add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value)


def in_columns(result: Result) -> dict[str, str]:
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
