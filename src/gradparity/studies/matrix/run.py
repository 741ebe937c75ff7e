"""The run of one cell, or of many on several processes."""

import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache, partial

from gradparity.errors import UserError, in_a_line, without_deterministic_form
from gradparity.parity.bits import same_bits
from gradparity.parity.lockstep import Comparison, LockstepRun, lockstep
from gradparity.parity.step_metrics import StepMetrics, StepMetricsReader
from gradparity.parity.verdict import verdict_of
from gradparity.processes.determinism import Device, prepare_worker
from gradparity.processes.fork_server import fork_context
from gradparity.studies.matrix import two_runs as make
from gradparity.studies.matrix.cell import MatrixCell, refusal


class CellOutcome(StrEnum):
    """The outcome of a cell; the most telling first."""

    DIFFERENT = "different"
    RAISED = "raised"
    """The cell raised an unexpected error."""
    IDENTICAL = "identical"
    REFUSED = "refused"
    """The cell cannot run, for a known reason: PyTorch or this machine does not support it."""


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """A cell and its outcome, with numbers that show how much was compared."""

    cell: MatrixCell
    outcome: CellOutcome
    why: str = ""
    """The first difference in words, the reason for a refusal, or the error."""
    step: int | None = None
    """The step of the first difference; ``phase`` and ``part`` are of it too."""
    phase: str | None = None
    part: str | None = None
    max_ulp: int = 0
    numbers: int = 0
    """The count of numbers that were compared."""
    moved: int = 0
    """The count of parameters whose bits changed in training. Parity means little without it and the next three."""
    rates: int = 0
    """The count of different learning rates."""
    clipped: int = 0
    """The count of steps in which clipping made the gradient smaller."""
    skipped: tuple[int, ...] = ()
    """The steps that overflowed."""

    def as_record(self) -> dict[str, object]:
        """Return the result for JSON."""
        return {**asdict(self.cell), **asdict(self), "cell": str(self.cell)}


def run_cell(cell: MatrixCell, candidate: str = "manual", device: Device = "cpu") -> CellResult:
    """Run the routes ``backward`` and ``candidate`` in lockstep through all steps of ``cell``."""
    why = refusal(cell, device) or unavailable(cell.task, cell.precision, device)
    if why:
        return CellResult(cell=cell, outcome=CellOutcome.REFUSED, why=why)
    try:
        return compare_cell(
            cell, make.cell_lane(cell, "backward", device), make.cell_lane(cell, candidate, device), device
        )
    except Exception as error:
        if why := without_deterministic_form(error):
            return CellResult(cell=cell, outcome=CellOutcome.REFUSED, why=why)
        return CellResult(cell=cell, outcome=CellOutcome.RAISED, why=in_a_line(error))


def compare_cell(
    cell: MatrixCell, reference: LockstepRun, candidate: LockstepRun, device: Device = "cpu"
) -> CellResult:
    """Run two lanes of ``cell`` on ``device`` in lockstep and return the result."""
    reader, steps = StepMetricsReader(reference.run), list[StepMetrics]()
    parameters = list(reference.run.model.parameters())
    start = [p.detach().clone() for p in parameters]

    def read(found: Comparison) -> None:
        if readings := reader.take(found.reference):
            steps.append(readings)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse invariant checks")  # Adagrad makes sparse tensors without them
        verdict = verdict_of(lockstep(reference, candidate, make.cell_windows(cell, device)), read)
    first, mismatch = verdict.first or (None, None)
    return CellResult(
        cell=cell,
        outcome=CellOutcome.IDENTICAL if verdict.parity else CellOutcome.DIFFERENT,
        why=verdict.explanation,
        step=first.place.step if first else None,
        phase=first.place.phase.name.lower() if first else None,
        part=mismatch.part if mismatch else None,
        max_ulp=max(part.max_ulp for part in verdict.cells.values()),
        numbers=verdict.numbers,
        moved=sum(not same_bits(p.detach(), before) for p, before in zip(parameters, start, strict=True)),
        rates=len({step.lr for step in steps}),
        clipped=sum(step.clipped_norm < step.norm for step in steps),
        skipped=tuple(index for index, step in enumerate(steps) if step.skipped),
    )


@cache
def unavailable(task: str, precision: str, device: Device = "cpu", optimizer: str = MatrixCell.optimizer) -> str | None:
    """Return the reason that this machine cannot compute ``task`` in ``precision``, or ``None``.

    One step of the reference is tried. Recurrent cells in half precision need certain processor instructions,
    ``torch.compile`` needs a C++ compiler, and not every fused optimizer exists for every device.
    """
    if task not in ("gru", "lstm", "compiled") and not optimizer.endswith("fused"):
        return None
    cell = MatrixCell(task=task, precision=precision, optimizer=optimizer, k=1)
    try:
        lane = make.cell_lane(cell, "backward", device)
        list(lane.step(lane.run, next(make.cell_windows(cell, device))))
    except Exception as error:
        return f"not on this machine: {in_a_line(error)}"
    return None


def run_cells(
    cells: Sequence[MatrixCell], processes: int, candidate: str = "manual", device: Device = "cpu"
) -> Iterator[CellResult]:
    """Yield the results of ``cells`` as they finish, run by ``processes`` processes with one thread each.

    Raises:
        UserError: if one of the processes is killed.
    """
    workers = min(processes, len(cells))
    with ProcessPoolExecutor(
        workers, mp_context=fork_context(__name__), initializer=_begin_worker, initargs=(device,)
    ) as pool:
        pending = [pool.submit(partial(run_cell, candidate=candidate, device=device), cell) for cell in cells]
        try:
            for future in as_completed(pending):
                yield future.result()
        except BrokenProcessPool:
            raise UserError(
                "a process was killed, maybe for want of memory; try again with fewer --processes"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def _begin_worker(device: Device) -> None:
    """Make this process ready in one thread, on ``device``, and leave Ctrl-C to its parent process."""
    prepare_worker(device)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
