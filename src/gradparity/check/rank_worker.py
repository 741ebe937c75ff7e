"""What each rank sees of a loop: run by :func:`gradparity.processes.launch.launch` on all of them, in new processes.

The loop always comes last: a rank that has come to its end, while others wait for it, has then nothing more to do, and
is told so. And whatever a loop leaves behind in a process ends with that.
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
from gradparity.trace.file import Writer
from gradparity.trace.record import Event, Record
from gradparity.trace.recording import about, folder_of_rank
from gradparity.training.distributed import tensors_of
from gradparity.training.exchange import share


def see(name: str, precision: str, folder: Path) -> tuple[Observed, Observed]:
    """The reference and the loop ``name``; both are written down as well, each to a folder in ``folder``."""
    return (
        _kept(right(), precision, folder / "reference"),
        _kept(load(name), precision, folder / "loop"),
    )


def see_again(name: str, precision: str) -> tuple[Observed, Observed, Graphs]:
    """Both once more, and the graphs that the loop keeps."""
    graphs = Graphs()

    def build(precision: str) -> Cast:
        cast = build_on_ranks(precision)
        cast.model.register_forward_hook(graphs.sign)
        return cast

    reference = run(right(), precision)
    return reference, run(load(name), precision, build, graphs.after), graphs


def right() -> Loop:
    """The reference on several ranks."""
    reference: Loop = on_ranks_with([])["reference_on_ranks"]
    return reference


def see_in_fp32(name: str) -> Observed:
    """The loop without loss scaling and autocast."""
    return run(load(name), "fp32")


def error_by_oracle(name: str) -> float | None:
    """The relative error of this rank's first gradient; that of all ranks' windows together, if the loop is right."""

    def window(cast: Cast) -> list[Batch]:
        of_ranks = [microbatches_of(rank) for rank in range(dist.get_world_size())]
        return [batch for batches in of_ranks for batch in batches[: cast.plan.accumulation_steps]]

    return error_of_first_step(load(name), build_alike, window, seed=dist.get_rank())


def build_alike(precision: str) -> Cast:
    """Everything as it is at the beginning, the model as it will be when rank 0's has been shared."""
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
    """``loop`` as this rank has seen it, which came to its end.

    Raises:
        Exception: what the loop has raised.
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
    """As :func:`gradparity.check.observe.observe`, with weights and masks of this rank's own."""
    return observe(loop, build, precision, go_on, writer, seed=dist.get_rank(), trim=with_the_buffers_of_windows)


def with_the_buffers_of_windows(record: Record) -> Record:
    """``record`` without the buffers inside a window: DDP shares them there or not, and the updates are the same."""
    if record.event == Event.FORWARD and record.microbatch == 0:
        return record
    return replace(record, parts={part: values for part, values in record.parts.items() if part != Part.BUFFERS})


def _kept(loop: Loop, precision: str, folder: Path) -> Observed:
    writer = Writer(folder_of_rank(folder), about(), full=True)
    try:
        return run(loop, precision, writer=writer)
    finally:
        writer.close()
