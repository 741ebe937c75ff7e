"""What is written of a lockstep: TensorBoard files for eyes, and a JSONL file for exact figures."""

import json
import math
import os
import shlex
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from types import TracebackType

from torch.utils.tensorboard import SummaryWriter

from gradparity.parity.lockstep import Comparison
from gradparity.parity.metrics import finite
from gradparity.parity.readings import Readings
from gradparity.training import Phase

FIGURES = "differences.jsonl"


def new_folder(parent: Path) -> Path:
    """The next numbered folder in ``parent``, made here; nothing that is there is touched.

    Raises:
        OSError: if it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    taken = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
    folder = parent / str(max(taken, default=0) + 1)
    folder.mkdir()
    return folder


def tensorboard_command(folder: Path) -> str:
    """What to type to see ``folder``, from the current directory, whether or not the environment is activated."""
    found = shutil.which("tensorboard")
    program = Path(found or Path(sys.executable).with_name("tensorboard"))
    here = program.name if found else os.path.relpath(program)
    return f"{here} --logdir {shlex.quote(str(folder))}"


class Board:
    """Three TensorBoard runs in one folder: ``reference`` and ``candidate`` overlaid, ``difference`` beside them.

    Tags begin with ``title``, so that trainings of several models do not end up in one chart. TensorBoard sorts them,
    and so the numbers put what is looked at first on top.

    TensorBoard keeps float32, in which a difference of one ULP of a large number is lost. So ULP go there as a
    logarithm, and every figure goes in full to ``differences.jsonl``, a line for each comparison, as it is made.
    """

    def __init__(self, folder: Path, title: str) -> None:
        self.title = title
        self.reference = SummaryWriter(folder / "reference")
        self.candidate = SummaryWriter(folder / "candidate")
        self.difference = SummaryWriter(folder / "difference")
        self._figures = (folder / FIGURES).open("x", buffering=1)
        self._largest: dict[Phase, tuple[int, float]] = defaultdict(lambda: (0, 0.0))

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer in (self.reference, self.candidate, self.difference):
            writer.close()
        self._figures.close()

    def compared(self, found: Comparison) -> None:
        """Write the figures of one comparison, and at the end of a step the largest ones of each phase."""
        self._figures.write(json.dumps(as_record(found)) + "\n")
        ulp, relative = self._largest[found.phase]
        for figures in found.figures.values():
            ulp = max(ulp, figures.max_ulp)
            relative = max(relative, figures.relative_norm)
        self._largest[found.phase] = ulp, relative
        if found.phase == Phase.STEPPED:
            for phase, (ulp, relative) in self._largest.items():
                group, name = f"{self.title} 3 difference", f"{phase + 1} {phase.name.lower()}"
                self.difference.add_scalar(f"{group}, log10(1 + ULP)/{name}", math.log10(1 + ulp), found.step)
                self.difference.add_scalar(f"{group}, relative norm/{name}", relative, found.step)
            self._largest.clear()

    def read(self, step: int, reference: Readings, candidate: Readings) -> None:
        """Overlay what both runs show of one step."""
        for writer, readings in ((self.reference, reference), (self.candidate, candidate)):
            writer.add_scalar(f"{self.title} 1 training/loss", readings.loss, step)
            writer.add_scalar(f"{self.title} 1 training/learning rate", readings.lr, step)
            writer.add_scalar(f"{self.title} 1 training/loss scale", readings.scale, step)
            writer.add_scalar(f"{self.title} 2 gradient norm/before clipping", readings.norm, step)
            writer.add_scalar(f"{self.title} 2 gradient norm/after clipping", readings.clipped_norm, step)

    def evaluated(self, step: int, metric: str, reference: float, candidate: float) -> None:
        """Overlay a held-out metric of both runs."""
        for writer, value in ((self.reference, reference), (self.candidate, candidate)):
            writer.add_scalar(f"{self.title} 1 training/held-out {metric}", value, step)

    def told(self, page: str, markdown: str) -> None:
        """Write a text page."""
        self.difference.add_text(f"{self.title}/{page}", markdown)


def as_record(found: Comparison) -> dict[str, object]:
    """``found`` for JSON: exact figures, ``null`` where a figure is not a number."""
    differing: dict[str, int] = defaultdict(int)
    for mismatch in found.mismatches:
        differing[mismatch.part] += 1
    return {
        "step": found.step,
        "phase": found.phase.name.lower(),
        "microbatch": found.microbatch,
        "compared": found.checked,
        "differing": differing,
        "figures": {part: finite(figures) for part, figures in found.figures.items()},
    }
