"""One cell, or many of them on several processes."""

import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import torch

from gradparity.matrix import lanes as make
from gradparity.matrix.cell import Cell, refusal
from gradparity.parity.lockstep import Lane, lockstep
from gradparity.parity.readings import Reader
from gradparity.parity.verdict import Verdict


class Outcome(StrEnum):
    """What came of a cell."""

    IDENTICAL = "identical"
    DIFFERENT = "different"
    REFUSED = "refused"
    """By PyTorch, whichever way ``p.grad`` is filled, and for a reason that is known."""
    RAISED = "raised"
    """An error that nobody expected."""


@dataclass(frozen=True)
class Result:
    """A cell and what came of it."""

    cell: Cell
    outcome: Outcome
    why: str = ""
    """The first difference, or the reason for a refusal."""
    max_ulp: int = 0
    numbers: int = 0
    """How many numbers were compared."""
    skipped: int = 0
    """How many steps overflowed."""


def run_cell(cell: Cell) -> Result:
    """Both routes in lockstep through all steps of ``cell``."""
    why = refusal(cell) or unavailable(cell.task, cell.precision)
    if why:
        return Result(cell, Outcome.REFUSED, why)
    try:
        return result_of(cell, Verdict(), *make.lanes(cell))
    except Exception as error:
        return Result(cell, Outcome.RAISED, f"{type(error).__name__}: {error}".splitlines()[0])


def result_of(cell: Cell, verdict: Verdict, reference: Lane, candidate: Lane) -> Result:
    """What came of two lanes of ``cell``."""
    reader, skipped = Reader(reference.run), 0
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse invariant checks")  # Adagrad makes its sparse tensors without
        for found in lockstep(reference, candidate, make.windows(cell)):
            verdict.add(found)
            readings = reader.take(found.reference)
            skipped += bool(readings and readings.skipped)
    max_ulp = max(c.max_ulp for c in verdict.cells.values())
    outcome = Outcome.IDENTICAL if verdict.parity else Outcome.DIFFERENT
    return Result(cell, outcome, verdict.explanation, max_ulp, verdict.numbers, skipped)


@cache
def unavailable(task: str, precision: str) -> str | None:
    """Why this machine cannot compute ``task`` in ``precision``, found by one step of the reference, or ``None``.

    Recurrent cells in half precision need processor instructions, and ``torch.compile`` needs a compiler.
    """
    if task not in ("gru", "lstm", "compiled"):
        return None
    cell = Cell(task=task, precision=precision, k=1)
    lane = make.lane(cell, "backward")
    try:
        list(lane.step(lane.run, next(make.windows(cell))))
    except Exception as error:
        return f"not on this machine: {str(error).splitlines()[0]}"
    return None


def run_cells(cells: Sequence[Cell], processes: int) -> Iterator[Result]:
    """The results of ``cells`` as they come, each from one of ``processes`` processes with one thread each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        pending = [pool.submit(run_cell, cell) for cell in cells]
        try:
            for future in as_completed(pending):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)
