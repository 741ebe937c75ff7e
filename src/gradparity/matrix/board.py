"""What TensorBoard shows of a matrix: the heatmap under *Images*, and every cell under *HParams*, to filter by."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard.summary import hparams

from gradparity.board.events import Events
from gradparity.matrix.picture import figure
from gradparity.matrix.run import Outcome, Result

MOST = 1000
"""Cells of which each is written as a run of its own, as HParams ask for; TensorBoard is slow with more."""


def write(folder: Path, results: Sequence[Result]) -> None:
    """Write the heatmap of ``results`` and, unless they are more than :data:`MOST`, each one's axes and outcome."""
    columns = [in_columns(result) for result in results if len(results) <= MOST]
    # Of text, TensorBoard offers only those values to filter by that it is told of.
    allowed = {name: sorted({column[name] for column in columns}) for name in (columns[0] if columns else ())}
    with Events(folder / "all_cells") as writer:
        writer.add_figure("matrix/outcomes", figure(results), close=False)
        writer.add_text("matrix/how many cells came out how, and why", reasons(results))
    for result, column in zip(results, columns, strict=False):
        metrics = {"log10 of 1 + ULP": math.log10(1 + result.max_ulp), "numbers compared": result.numbers}
        with Events(folder / "cells" / str(result.cell)) as writer:
            for summary in hparams(column, metrics, allowed):
                writer.file_writer.add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value)


def in_columns(result: Result) -> dict[str, str]:
    """A cell for a table that sorts its columns by name and shows the first five."""
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


def reasons(results: Sequence[Result]) -> str:
    """A text page: how many cells came out how, and why."""
    counts = Counter((result.outcome, result.why) for result in results)
    order = sorted(counts.items(), key=lambda item: (list(Outcome).index(item[0][0]), -item[1]))
    return "\n".join(
        f"* **{number:,} {outcome}**: {' '.join(why.split())}".rstrip(": ") for (outcome, why), number in order
    )
