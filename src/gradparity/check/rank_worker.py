"""Observation of a loop on each rank; :func:`gradparity.processes.launch.launch` calls these in new processes.

The user's loop always runs last. So a rank that finishes while others still wait for it has nothing more to do, and the
error message says so. Whatever a loop leaves behind in a process ends with that process.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch.distributed as dist

from gradparity.check.graph_leaks import Graphs
from gradparity.check.observe import GoOn, Keeper, Loop, Observed, observe
from gradparity.check.oracle import error_of_first_step
from gradparity.check.user_loop import load
from gradparity.faults.patching_on_ranks import on_ranks_with
from gradparity.faults.stress import Cast
from gradparity.faults.stress_on_ranks import build_on_ranks, microbatches_of
from gradparity.parity.batch import Batch
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record
from gradparity.trace.file import Writer
from gradparity.trace.record import about, folder_of_rank
from gradparity.training.distributed import tensors_of
from gradparity.training.exchange import share


def see(name: str, precision: str, folder: Path) -> tuple[Observed, Observed]:
    """Observe the reference and the loop ``name``; write a trace of each to its own folder in ``folder``."""
    return (
        _kept(right(), precision, folder / "reference"),
        _kept(load(name), precision, folder / "loop"),
    )


def see_again(name: str, precision: str) -> tuple[Observed, Observed, Graphs]:
    """Observe both once more, and the graphs that the loop keeps."""
    graphs = Graphs()

    def build(precision: str) -> Cast:
        cast = build_on_ranks(precision)
        cast.model.register_forward_hook(graphs.sign)
        return cast

    reference = run(right(), precision)
    return reference, run(load(name), precision, build, graphs.after), graphs


def right() -> Loop:
    """Return the reference for several ranks."""
    reference: Loop = on_ranks_with([])["reference_on_ranks"]
    return reference


def see_in_fp32(name: str) -> Observed:
    """Observe the loop without loss scaling and autocast."""
    return run(load(name), "fp32")


def error_by_oracle(name: str) -> float | None:
    """Return the relative error of this rank's first gradient.

    In a correct loop, this is the gradient of the windows of all ranks together.
    """

    def window(cast: Cast) -> list[Batch]:
        of_ranks = [microbatches_of(rank) for rank in range(dist.get_world_size())]
        return [batch for batches in of_ranks for batch in batches[: cast.plan.accumulation_steps]]

    return error_of_first_step(load(name), build_alike, window, seed=dist.get_rank())


def build_alike(precision: str) -> Cast:
    """Build everything in its initial state, with the model as it is after rank 0 has shared its weights."""
    cast = build_on_ranks(precision)
    share(tensors_of(cast.model))
    return cast


def run(
    loop: Loop,
    precision: str,
    build: Callable[[str], Cast] = build_on_ranks,
    go_on: GoOn = lambda records, looks: True,
    writer: Keeper | None = None,
) -> Observed:
    """Observe ``loop`` on this rank, to its end.

    Raises:
        Exception: the exception that the loop raised.
    """
    raised: list[BaseException] = []

    def told(**given: object) -> None:
        try:
            loop(**given)
        except (Exception, SystemExit) as error:
            raised.append(error)
            raise

    seen = observe_rank(told, build, precision, go_on, writer)
    if raised:
        raise raised[0]
    return seen


def observe_rank(
    loop: Loop, build: Callable[[str], Cast], precision: str, go_on: GoOn, writer: Keeper | None = None
) -> Observed:
    """Call :func:`gradparity.check.observe.observe` with weights and masks of this rank's own."""
    return observe(loop, build, precision, go_on, writer, seed=dist.get_rank(), trim=with_the_buffers_of_windows)


def with_the_buffers_of_windows(record: Record) -> Record:
    """Return ``record`` without buffers, unless it is the first forward of a window.

    Inside a window DDP may or may not share buffers, and the updates are the same.
    """
    if record.event == Event.FORWARD and record.microbatch == 0:
        return record
    return replace(record, parts={part: values for part, values in record.parts.items() if part != Part.BUFFERS})


def _kept(loop: Loop, precision: str, folder: Path) -> Observed:
    writer = Writer(folder_of_rank(folder), about(), full=True)
    try:
        return run(loop, precision, writer=writer)
    finally:
        writer.close()
