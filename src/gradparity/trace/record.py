"""``gradparity.record``: the one call that watches a training loop and writes its trace."""

import platform
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from gradparity.errors import UserError
from gradparity.trace.hook_check import require_sight
from gradparity.trace.isolation import warn
from gradparity.trace.process_rank import this_rank, world_size
from gradparity.trace.snapshot import TrainingObjects, unwrapped
from gradparity.trace.step_recorder import Recorder
from gradparity.trace.trace_file import Writer


@contextmanager
def record(
    model: nn.Module,
    optimizer: Any,
    folder: str | Path,
    *,
    scaler: GradScaler | None = None,
    scheduler: Any = None,
    full: bool = False,
    strict: bool = False,
) -> Iterator[Path]:
    """Watch the training loop in the block and write its trace to ``folder``; not one bit of the training changes.

    An error in the recording, such as a full disk, ends the recording but not the training. If the trace lacks
    something, a :class:`gradparity.trace.isolation.RecordingWarning` and a note in the trace say so.

    Args:
        model: the model that is trained.
        optimizer: a ``torch.optim.Optimizer``, or a wrapper that keeps one in an attribute.
        folder: the folder for the trace. It is created, and refused if it holds a trace already. If
            ``torch.distributed`` is initialized with several ranks, each rank writes its own trace: ``FOLDER/rank0``,
            ``FOLDER/rank1``, ...
        scaler: found automatically when it scales a loss. Pass it if its state before that matters.
        scheduler: pass it to record its state too. The learning rates are recorded in any case.
        full: keep copies of all tensors too, so that a difference can be given in ULP. On disk, each event takes the
            size of the tensors seen; each optimizer step takes about six times the parameters in total.
        strict: raise, at the end of the block, an error for anything that is otherwise a warning.

    Yields:
        The folder of this trace.

    Raises:
        UserError: before anything is watched, if ``folder``, the model or the optimizer cannot be used, or if nothing
            would be seen on this version of torch. At the end, if ``strict`` is set and the trace lacks something.
    """
    watched = _objects_of(model, optimizer, scaler, scheduler)
    require_sight()
    folder = folder_of_rank(Path(folder))
    writer = Writer(folder, about(), full)
    recorder = Recorder(watched, writer.write, keeps=full, warns=not strict, late=not full)
    try:
        with recorder.watching():
            yield folder
    finally:
        for sentence in recorder.lacks.all():
            with suppress(Exception):  # the disk may be full; that error was reported already
                writer.note(sentence)
        writer.close()
    if strict and recorder.lacks.all():
        raise recorder.fault if isinstance(recorder.fault, UserError) else UserError("; ".join(recorder.lacks.all()))
    for sentence in recorder.lacks.sentences:
        warn(f"{folder}: {sentence}")


def _objects_of(model: Any, optimizer: Any, scaler: GradScaler | None = None, scheduler: Any = None) -> TrainingObjects:
    """Return the objects that a loop trains with, without the wrappers of frameworks.

    Raises:
        UserError: if ``model`` is not a model, or ``optimizer`` is not an optimizer.
    """
    if not isinstance(model, nn.Module):
        raise UserError(
            f"the model is a {type(model).__name__}; give one torch.nn.Module, such as an nn.ModuleList of all"
        )
    return TrainingObjects(model, _optimizer_in(optimizer), scaler, unwrapped(scheduler, "scheduler"))


def _optimizer_in(thing: Any) -> Optimizer:
    """Return the ``torch.optim.Optimizer`` that ``thing`` is, or that it keeps in an attribute of any name.

    Raises:
        UserError: if there is no optimizer, or more than one.
    """
    inner = unwrapped(thing, "optimizer")
    if isinstance(inner, Optimizer):
        return inner
    held = {id(x): x for x in getattr(inner, "__dict__", {}).values() if isinstance(x, Optimizer)}
    if len(held) == 1:
        return next(iter(held.values()))
    if isinstance(inner, Collection) or len(held) > 1:
        raise UserError(
            f"{len(held) or len(inner)} optimizers in a {type(thing).__name__}; record one, each in a block of its own"
        )
    raise UserError(
        f"the optimizer is a {type(thing).__name__}; give a torch.optim.Optimizer, or a wrapper that keeps one"
    )


def folder_of_rank(folder: Path) -> Path:
    """Return this rank's folder in ``folder``; ``folder`` itself if there is only one rank."""
    return folder / f"rank{this_rank()}" if world_size() > 1 else folder


def about() -> dict[str, str | int]:
    """Return the facts, besides the loop, that the bits depend on: versions, threads, ranks and hardware."""
    gpu = {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)} if torch.cuda.is_initialized() else {}
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "ranks": world_size(),
        "machine": f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}",
        **gpu,
    }
