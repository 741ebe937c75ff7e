"""The log of a lockstep: TensorBoard files to look at, and a JSONL file with the exact figures."""

import json
import math
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from gradparity.errors import DiskError, UserError, writing
from gradparity.parity import report
from gradparity.parity.figures import finite
from gradparity.parity.lockstep import Comparison
from gradparity.parity.place_in_training import START
from gradparity.parity.step_metrics import StepMetrics
from gradparity.parity.verdict import Verdict
from gradparity.safe_files.append_only import AppendOnlyFile
from gradparity.tensorboard import first_difference, layout, map_picture
from gradparity.tensorboard.divergence_map import DivergenceMap
from gradparity.tensorboard.events import EVENTS, Events
from gradparity.tensorboard.layout import phase_name
from gradparity.training import Phase

FIGURES_FILE = "differences.jsonl"


@dataclass
class _PhaseSizes:
    """The size of the difference at one phase of one step, over all of its microbatches."""

    max_ulp: int = 0
    relative_norm: float = 0.0
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(65, np.int64))
    """Number of elements by the bit length of their distance in ULP; identical elements have length 0."""

    def add(self, found: Comparison) -> None:
        """Add one comparison."""
        self.histogram[0] += found.numbers
        for figures in found.figures.values():
            self.max_ulp = max(self.max_ulp, figures.max_ulp)
            self.relative_norm = max(self.relative_norm, figures.relative_norm)
            self.histogram[0] -= figures.differing
            self.histogram[1 : 1 + len(figures.histogram)] += figures.histogram


class Board:
    """Three TensorBoard runs in one folder: the reference and the candidate overlaid, and their difference.

    Tags contain ``title``, so that trainings of several models get separate charts;
    :mod:`gradparity.tensorboard.layout` lists all tags. The divergence map and the verdict need the whole run, so they
    are written at the end.

    TensorBoard keeps float32, in which one ULP of a large number is lost. So ULP are logged as a logarithm, and every
    figure is written in full to ``differences.jsonl``, one line for each comparison, as it is made.

    Args:
        folder: the folder to write to; it must hold no such file yet, unless ``resumed``.
        title: a title for the training, such as the name of its task.
        verdict: the verdict on the two runs, updated by the caller with each comparison; it is shown at the end.
        divergence_map: the map to fill; by default without parameters.
        candidate: the name of the loop that is compared with ``.backward()``; empty if neither loop is known.
        resumed: if ``folder`` holds the files of earlier steps, which ``verdict`` and ``divergence_map`` include.

    Raises:
        OSError: if the folder cannot be written.
        DiskError: from any method, with the name of the file.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        verdict: Verdict,
        divergence_map: DivergenceMap | None = None,
        candidate: str = "",
        resumed: bool = False,
    ) -> None:
        self.title, self.name = title, candidate
        self._verdict, self._map = verdict, divergence_map or DivergenceMap(())
        folder.mkdir(parents=True, exist_ok=True)
        self._figures = AppendOnlyFile(folder / FIGURES_FILE, goes_on=resumed)
        self.reference, self.candidate = (Events(folder / run) for run in layout.run_names(candidate))
        self.difference = Events(folder / layout.DIFFERENCE_RUN)
        self._sizes: dict[Phase, _PhaseSizes] = defaultdict(_PhaseSizes)
        if not resumed:
            self.difference.add_custom_scalars(layout.charts(title))

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._map.columns and not isinstance(error, DiskError):
                self._conclude()
        finally:
            for file in self._files:
                file.close()

    def sync(self) -> None:
        """Return once all that was written would survive a power cut."""
        for file in self._files:
            file.sync()

    @property
    def _files(self) -> tuple[Events | AppendOnlyFile, ...]:
        return self.reference, self.candidate, self.difference, self._figures

    def add_comparison(self, found: Comparison) -> None:
        """Write the figures of one comparison; at the end of a step, write the largest figures of each phase."""
        self._map.add(found)
        self._figures.write(f"{json.dumps(comparison_record(found))}\n".encode())
        self._sizes[found.place.phase].add(found)
        if found.place.phase == Phase.STEPPED:
            if found.place.in_a_step:  # before the first step and after the last, there is no step to plot it at
                self._write_sizes(found.place.step)
            self._sizes.clear()

    def add_metrics(self, step: int, reference: StepMetrics, candidate: StepMetrics) -> None:
        """Write the metrics of both runs for one step, overlaid."""
        for writer, readings in ((self.reference, reference), (self.candidate, candidate)):
            writer.add_scalar(layout.LOSS.format(self.title), readings.loss, step)
            writer.add_scalar(layout.NORM.format(self.title), readings.norm, step)
            writer.add_scalar(layout.CLIPPED_NORM.format(self.title), readings.clipped_norm, step)
            writer.add_scalar(layout.SCALE.format(self.title), readings.scale, step)
            writer.add_scalar(layout.RATE.format(self.title), readings.lr, step)

    def add_evaluation(self, step: int, metric: str, reference: float, candidate: float) -> None:
        """Write a held-out metric of both runs, overlaid."""
        for writer, value in ((self.reference, reference), (self.candidate, candidate)):
            writer.add_scalar(f"{layout.METRIC.format(self.title)} {metric}", value, step)

    def add_page(self, page: str, markdown: str) -> None:
        """Write a text page."""
        self.difference.add_text(f"{page}/{self.title}", markdown)

    def _write_sizes(self, step: int) -> None:
        largest = max(sizes.max_ulp for sizes in self._sizes.values())
        self.difference.add_scalar(layout.LARGEST_DIFFERENCE.format(self.title), math.log10(1 + largest), step)
        for phase, sizes in self._sizes.items():
            of_phase = self.title, phase_name(phase)
            self.difference.add_scalar(layout.ULP.format(*of_phase), math.log10(1 + sizes.max_ulp), step)
            self.difference.add_scalar(layout.RELATIVE.format(*of_phase), sizes.relative_norm, step)
            if has_histogram(step) and sizes.histogram.any():
                self._write_histogram(layout.HISTOGRAM.format(*of_phase), sizes.histogram, step)

    def _write_histogram(self, tag: str, counts: npt.NDArray[np.int64], step: int) -> None:
        used = np.flatnonzero(counts)
        bits = np.arange(used[0], used[-1] + 1)
        counts = counts[bits]
        self.difference.add_histogram_raw(
            tag,
            min=bits[0] - 0.5,  # TensorBoard stretches the outermost buckets to here
            max=bits[-1] + 0.5,
            num=int(counts.sum()),
            sum=float(counts @ bits),
            sum_squares=float(counts @ bits**2),
            bucket_limits=list(bits + 0.5),
            bucket_counts=list(counts),
            global_step=step,
        )

    def _conclude(self) -> None:
        head = f"{self.title}: {first_difference.first_difference_sentence(self._verdict)}"
        self.difference.add_figure(
            layout.MAP.format(self.title), map_picture.draw_overview(self._map, head), close=False
        )
        for phase in Phase:
            drawn = map_picture.draw_phase(self._map, phase, f"{self.title}, {phase.name.lower()}")
            self.difference.add_figure(layout.PHASE_MAP.format(self.title, phase_name(phase)), drawn, close=False)
        self.add_page(layout.FIRST_PAGE, first_difference.first_difference_page(self._verdict, self.name))
        self.add_page(layout.VERDICT_PAGE, report.verdict_markdown(self._verdict))


def file_lengths(folder: Path) -> dict[str, int]:
    """Return the length of each file of a board in ``folder``, in bytes."""
    files = [*folder.glob(FIGURES_FILE), *folder.glob(f"*/{EVENTS}.*")]
    return {str(path.relative_to(folder)): path.stat().st_size for path in files}


def last_step(folder: Path) -> int:
    """Return the latest step that was compared; that of ``START`` if there is none."""
    path = folder / FIGURES_FILE
    *lines, _ = path.read_bytes().split(b"\n") if path.exists() else [b""]
    return int(json.loads(lines[-1])["step"]) if lines else START.step


def truncate_files(folder: Path, kept: Mapping[str, int]) -> None:
    """Truncate the files of a board in ``folder`` to the lengths ``kept``, and delete the files made later.

    Raises:
        UserError: if a file is missing or shorter than it was.
    """
    found = file_lengths(folder)
    for name, length in kept.items():
        if found.get(name, 0) < length:
            raise UserError(f"{folder / name} is shorter than it was at the checkpoint; bring it back, or train again")
    for name in found:
        with writing(folder / name):
            os.truncate(folder / name, kept[name]) if name in kept else (folder / name).unlink()


def has_histogram(step: int) -> bool:
    """Return whether ``step`` gets a histogram: the first 64 do, then 32 of each doubling."""
    return step % (1 << max(0, step.bit_length() - 6)) == 0


def comparison_record(found: Comparison) -> dict[str, object]:
    """Return ``found`` for JSON: exact figures, ``null`` where a figure is not finite."""
    differing: dict[str, int] = defaultdict(int)
    for mismatch in found.mismatches:
        differing[mismatch.part] += 1
    return {
        "step": found.place.step,
        "phase": found.place.phase.name.lower(),
        "microbatch": found.place.microbatch,
        "compared": found.checked,
        "differing": differing,
        "figures": {part: finite(figures) for part, figures in found.figures.items()},
    }
