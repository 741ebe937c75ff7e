"""Observation of a loop on each rank; :func:`gradparity.processes.launch` calls these in new processes.

The user's loop always runs last. So if a rank finishes while others still wait for it, the loop is the reason, and the
error message says so. Anything that a loop leaves behind in a process ends with that process.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch.distributed as dist

from gradparity.check.running.float64_reference import error_of_first_gradient
from gradparity.check.running.graph_leaks import GraphLeaks
from gradparity.check.running.observe import GoOn, ObservedLoop, RecordSink, UserLoop, observe
from gradparity.check.running.user_loop import load_loop
from gradparity.faults.patching_on_ranks import on_ranks_with
from gradparity.faults.stress_scenario import Cast
from gradparity.faults.stress_scenario_on_ranks import build_on_ranks, microbatches_of
from gradparity.parity.batch import Batch
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record
from gradparity.trace.record import about, folder_of_rank
from gradparity.trace.trace_file import Writer
from gradparity.training.collectives import share
from gradparity.training.distributed import tensors_of


def observe_both(name: str, precision: str, folder: Path) -> tuple[ObservedLoop, ObservedLoop]:
    """Observe the reference and the loop ``name``; write a trace of each to its own folder in ``folder``."""
    return (
        _observe_and_record(_reference(), precision, folder / "reference"),
        _observe_and_record(load_loop(name), precision, folder / "loop"),
    )


def observe_both_again(name: str, precision: str) -> tuple[ObservedLoop, ObservedLoop, GraphLeaks]:
    """Observe both once more, and the graphs that the loop keeps."""
    graphs = GraphLeaks()
    reference = _observe_all(_reference(), precision)
    build = partial(graphs.build, build=build_on_ranks)
    return reference, _observe_all(load_loop(name), precision, build, graphs.count), graphs


def _reference() -> UserLoop:
    """Return the reference for several ranks."""
    reference: UserLoop = on_ranks_with([])["reference_on_ranks"]
    return reference


def observe_in_fp32(name: str) -> ObservedLoop:
    """Observe the loop without loss scaling and autocast."""
    return _observe_all(load_loop(name), "fp32")


def error_of_rank(name: str) -> float | None:
    """Return the relative error of this rank's first gradient.

    In a correct loop, this is the gradient of the windows of all ranks together.
    """

    def window(cast: Cast) -> list[Batch]:
        ranks = range(dist.get_world_size())
        return [batch for rank in ranks for batch in microbatches_of(rank)[: cast.plan.accumulation_steps]]

    return error_of_first_gradient(load_loop(name), _build_shared, window, seed=dist.get_rank())


def _build_shared(precision: str) -> Cast:
    """Build everything in its initial state, with the model as it is after rank 0 has shared its weights."""
    cast = build_on_ranks(precision)
    share(tensors_of(cast.model))
    return cast


def _observe_all(
    loop: UserLoop,
    precision: str,
    build: Callable[[str], Cast] = build_on_ranks,
    go_on: GoOn = lambda records, observations: True,
    writer: RecordSink | None = None,
) -> ObservedLoop:
    """Observe ``loop`` on this rank until it returns.

    Raises:
        Exception: the exception that the loop raised.
    """
    raised: list[BaseException] = []

    def watched(**arguments: object) -> None:
        try:
            loop(**arguments)
        except (Exception, SystemExit) as error:
            raised.append(error)
            raise

    observed = observe_rank(watched, build, precision, go_on, writer)
    if raised:
        raise raised[0]
    return observed


def observe_rank(
    loop: UserLoop, build: Callable[[str], Cast], precision: str, go_on: GoOn, writer: RecordSink | None = None
) -> ObservedLoop:
    """Call :func:`gradparity.check.running.observe.observe` with weights and masks of this rank's own."""
    return observe(loop, build, precision, go_on, writer, seed=dist.get_rank(), trim=_buffers_once_a_window)


def _buffers_once_a_window(record: Record) -> Record:
    """Return ``record`` without buffers, unless it is the first forward of a window.

    Inside a window DDP may or may not share buffers, and the updates are the same.
    """
    if record.event == Event.FORWARD and record.microbatch == 0:
        return record
    return replace(record, parts={part: values for part, values in record.parts.items() if part != Part.BUFFERS})


def _observe_and_record(loop: UserLoop, precision: str, folder: Path) -> ObservedLoop:
    writer = Writer(folder_of_rank(folder), about(), full=True)
    try:
        return _observe_all(loop, precision, writer=writer)
    finally:
        writer.close()
