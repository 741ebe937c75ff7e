"""What TensorBoard shows of a matrix: the heatmap under *Images*, and every cell under *HParams*, to filter by."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from gradparity.matrix.picture import figure
from gradparity.matrix.run import Result

MOST = 1000
"""Cells of which each is written as a run of its own, as HParams ask for; TensorBoard is slow with more."""


def write(folder: Path, results: Sequence[Result]) -> None:
    """Write the heatmap of ``results`` and, unless they are more than :data:`MOST`, each one's axes and outcome."""
    with SummaryWriter(folder) as writer:
        writer.add_figure("matrix", figure(results), close=False)
        for number, result in enumerate(results if len(results) <= MOST else ()):
            writer.add_hparams(
                {**asdict(result.cell), "outcome": str(result.outcome)},
                {"log10(1 + ULP)": math.log10(1 + result.max_ulp), "numbers compared": result.numbers},
                run_name=f"cells/{number}",
            )
