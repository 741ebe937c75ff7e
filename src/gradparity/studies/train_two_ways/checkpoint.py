"""A checkpoint in one file: both lanes resume from it in the same bits, with the results and the board's files.

A checkpoint is taken between two optimizer steps, where no window is open. A run that is killed within a window repeats
that window from its first microbatch. The order of the data is no state: it follows from the seed and the number of
steps.

The file is an archive with a checksum for each member, so a torn file is detected. It is loaded with ``weights_only``,
which creates only tensors, plain values and the classes in :data:`CHECKPOINT_CLASSES`, and runs no code.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import torch

from gradparity import training
from gradparity.errors import UserError, writing
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.explanation_kinds import LikelyCause, Meaning
from gradparity.parity.figures import Figures
from gradparity.parity.lockstep import Comparison, LockstepRun
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.place_in_training import Place
from gradparity.parity.report import StepCounts, machine
from gradparity.parity.state import Part
from gradparity.parity.verdict import Verdict, VerdictCell
from gradparity.safe_files.open_regular import open_regular
from gradparity.studies.train_two_ways.config import Config
from gradparity.tensorboard.board import file_lengths, last_step, truncate_files
from gradparity.tensorboard.divergence_map import DivergenceMap
from gradparity.training import Moment, Phase
from gradparity.training.checkpoint import written_over

CHECKPOINT = "checkpoint.zip"
LANES = ("reference.pt", "candidate.pt")
PROGRESS = "progress.pt"

ANEW = "move it away to train from the first step"

FIELDS_WITHOUT_EFFECT = ("output", "quiet", "evaluate_every", "checkpoint_every")
"""Fields of a configuration that do not change any bit of a training."""


@dataclass
class Progress:
    """The number of steps that a training has made, and the results so far."""

    done: int = 0
    """Optimizer steps."""
    verdict: Verdict = field(default_factory=Verdict)
    divergence_map: DivergenceMap | None = None
    """``None`` before the first step."""
    evidence: StepCounts = field(default_factory=StepCounts)
    metrics: list[list[float]] = field(default_factory=list)
    """The held-out metric of both lanes at each evaluation."""
    machine: str = field(default_factory=machine)
    """The machine that made these steps; a different one may round differently."""


CHECKPOINT_CLASSES = (
    Progress, Verdict, VerdictCell, Comparison, Place, Moment, Mismatch, Figures, Phase, Part, Kind, DivergenceMap,
    StepCounts, Counter, LikelyCause, Meaning,
)  # fmt: skip
"""All classes in a checkpoint; the rest are tensors and plain values."""


def save_progress(folder: Path, config: Config, lanes: Sequence[LockstepRun], progress: Progress) -> None:
    """Write the checkpoint in ``folder``; the previous one stays until the new one is complete.

    Raises:
        DiskError: if the disk is full, or cannot be written.
    """
    state = {
        "form": class_fields(),
        "bits": fields_that_change_bits(config),
        "lengths": file_lengths(folder),
        "progress": progress,
    }
    with writing(folder / CHECKPOINT), written_over(folder / CHECKPOINT) as file, ZipFile(file, "w") as archive:
        for name, lane in zip(LANES, lanes, strict=True):
            of_lane = BytesIO()
            with lane.random.active():  # so that the random state in the file is the lane's own
                training.save(lane.run, of_lane)
            archive.writestr(name, of_lane.getbuffer())
        of_both = BytesIO()
        torch.save(state, of_both)
        archive.writestr(PROGRESS, of_both.getbuffer())


def resume_progress(folder: Path, config: Config, lanes: Sequence[LockstepRun]) -> Progress:
    """Restore ``lanes`` and the files of the board in ``folder`` to the checkpoint there, and return its progress.

    Without a checkpoint, delete the files of the board and return an empty progress.

    Raises:
        UserError: if the checkpoint is missing though one was due, is not complete, or is from a different training.
            No file has been changed then.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        if last_step(folder) >= config.checkpoint_every:
            raise UserError(f"{path} is missing; bring it back, or train again in a new folder")
        truncate_files(folder, {})
        return Progress()
    try:
        with open_regular(path, sys.maxsize) as file, ZipFile(file) as archive:
            if any(member.compress_type != ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed, and a checkpoint never is")  # a few bytes may expand to gigabytes
            *of_lanes, of_both = (BytesIO(archive.read(name)) for name in (*LANES, PROGRESS))
        with torch.serialization.safe_globals(list(CHECKPOINT_CLASSES)):
            state = torch.load(of_both, weights_only=True)
        if state.get("form") != class_fields():
            raise ValueError("it was written by a different version of gradparity")
        theirs = state["bits"]
        changed = [name for name, value in fields_that_change_bits(config).items() if theirs.get(name) != value]
        if not changed:
            for lane, of_lane in zip(lanes, of_lanes, strict=True):
                with lane.random.active():
                    training.resume(lane.run, of_lane)
        progress: Progress = state["progress"]
        kept = dict[str, int](state["lengths"])
        complete = isinstance(progress.verdict, Verdict) and isinstance(progress.divergence_map, DivergenceMap)
        if not (complete and 0 < progress.done <= config.steps):
            raise ValueError("it does not say how many steps were made")
    except Exception as error:  # a damaged file can raise any exception
        message = error.strerror if isinstance(error, OSError) else str(error).rpartition("WeightsUnpickler error: ")[2]
        reason = " ".join((message or type(error).__name__).split())[:120]
        raise UserError(f"{path} is not a whole checkpoint of this training ({reason}); {ANEW}") from error
    if changed:
        raise UserError(f"{path} is from a training with different {', '.join(changed)}; {ANEW}")
    truncate_files(folder, kept)
    return progress


def fields_that_change_bits(config: Config) -> dict[str, Any]:
    """Return the fields of ``config`` that the bits of a training depend on."""
    return {name: value for name, value in asdict(config).items() if name not in FIELDS_WITHOUT_EFFECT}


def class_fields() -> dict[str, list[str]]:
    """Return the fields of each class in a checkpoint; one that was saved with different fields cannot be loaded."""
    return {kind.__name__: [field.name for field in fields(kind)] for kind in CHECKPOINT_CLASSES if is_dataclass(kind)}
