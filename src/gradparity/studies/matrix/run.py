"""One cell, or many of them on several processes."""

import signal
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache, partial

import torch

from gradparity.errors import UserError, without_deterministic_form
from gradparity.parity.bits import same_bits
from gradparity.parity.lockstep import Lane, lockstep
from gradparity.parity.step_metrics import Reader, Readings
from gradparity.parity.verdict import Verdict
from gradparity.processes.device import Device, require, without_gpus
from gradparity.processes.fork_server import forks
from gradparity.studies.matrix import lanes as make
from gradparity.studies.matrix.cell import Cell, refusal


class Outcome(StrEnum):
    """What came of a cell, the most telling first."""

    DIFFERENT = "different"
    RAISED = "raised"
    """An error that nobody expected."""
    IDENTICAL = "identical"
    REFUSED = "refused"
    """For a reason that is known: PyTorch, or this machine, cannot run it."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """A cell and what came of it."""

    cell: Cell
    outcome: Outcome
    why: str = ""
    """The first difference in words, the reason for a refusal, or the error."""
    step: int | None = None
    """Of the first difference, and so the next two."""
    phase: str | None = None
    part: str | None = None
    max_ulp: int = 0
    numbers: int = 0
    """How many numbers were compared."""
    moved: int = 0
    """How many parameters have other bits than at first; without that and the next three, parity would say little."""
    rates: int = 0
    """How many different learning rates there were."""
    clipped: int = 0
    """In how many steps the gradient got smaller by clipping."""
    skipped: tuple[int, ...] = ()
    """The steps that overflowed."""

    def as_record(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self.cell), **asdict(self), "cell": str(self.cell)}


def run_cell(cell: Cell, candidate: str = "manual", device: Device = "cpu") -> Result:
    """The routes ``backward`` and ``candidate`` in lockstep through all steps of ``cell``."""
    why = refusal(cell, device) or unavailable(cell.task, cell.precision, device)
    if why:
        return Result(cell=cell, outcome=Outcome.REFUSED, why=why)
    try:
        return compared(cell, make.lane(cell, "backward", device), make.lane(cell, candidate, device), device)
    except Exception as error:
        if told := without_deterministic_form(error):
            return Result(cell=cell, outcome=Outcome.REFUSED, why=told)
        return Result(cell=cell, outcome=Outcome.RAISED, why=in_a_line(error))


def compared(cell: Cell, reference: Lane, candidate: Lane, device: Device = "cpu") -> Result:
    """What came of two lanes of ``cell`` on ``device``."""
    verdict, reader, steps = Verdict(), Reader(reference.run), list[Readings]()
    parameters = list(reference.run.model.parameters())
    start = [p.detach().clone() for p in parameters]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse invariant checks")  # Adagrad makes its sparse tensors without
        for found in lockstep(reference, candidate, make.windows(cell, device)):
            verdict.add(found)
            readings = reader.take(found.reference)
            steps += [readings] if readings else []
    first, mismatch = verdict.first or (None, None)
    return Result(
        cell=cell,
        outcome=Outcome.IDENTICAL if verdict.parity else Outcome.DIFFERENT,
        why=verdict.explanation,
        step=first.step if first else None,
        phase=first.phase.name.lower() if first else None,
        part=mismatch.part if mismatch else None,
        max_ulp=max(part.max_ulp for part in verdict.cells.values()),
        numbers=verdict.numbers,
        moved=sum(not same_bits(p.detach(), before) for p, before in zip(parameters, start, strict=True)),
        rates=len({step.lr for step in steps}),
        clipped=sum(step.clipped_norm < step.norm for step in steps),
        skipped=tuple(index for index, step in enumerate(steps) if step.skipped),
    )


@cache
def unavailable(task: str, precision: str, device: Device = "cpu", optimizer: str = Cell.optimizer) -> str | None:
    """Why this machine cannot compute ``task`` in ``precision``, found by one step of the reference, or ``None``.

    Recurrent cells in half precision need processor instructions, ``torch.compile`` needs a C++ compiler, and not every
    fused optimizer is there for every device.
    """
    if task not in ("gru", "lstm", "compiled") and not optimizer.endswith("fused"):
        return None
    cell = Cell(task=task, precision=precision, optimizer=optimizer, k=1)
    try:
        lane = make.lane(cell, "backward", device)
        list(lane.step(lane.run, next(make.windows(cell, device))))
    except Exception as error:
        return f"not on this machine: {in_a_line(error)}"
    return None


def in_a_line(error: Exception) -> str:
    """The type of ``error``, and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def run_cells(
    cells: Sequence[Cell], processes: int, candidate: str = "manual", device: Device = "cpu"
) -> Iterator[Result]:
    """The results of ``cells`` as they come, each from one of ``processes`` processes with one thread each.

    Raises:
        UserError: if one of the processes is killed.
    """
    workers = min(processes, len(cells))
    with ProcessPoolExecutor(workers, mp_context=forks(), initializer=alone, initargs=(device,)) as pool:
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


def alone(device: Device) -> None:
    """Make a process compute in one thread, and leave Ctrl-C to the process that started it."""
    torch.set_num_threads(1)
    require(device) if device == "cuda" else without_gpus()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
