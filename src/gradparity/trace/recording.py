"""``gradparity.record``: the one call with which somebody's loop is watched and written down."""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from gradparity.trace.file import Writer
from gradparity.trace.group import rank, ranks
from gradparity.trace.recorder import Recorder
from gradparity.trace.seen import Watched, unwrapped


@contextmanager
def record(
    model: nn.Module,
    optimizer: Any,
    folder: str | Path,
    *,
    scaler: GradScaler | None = None,
    scheduler: Any = None,
    full: bool = False,
) -> Iterator[Path]:
    """Watch the training loop in the block and write its trace to ``folder``; not one bit of the training changes.

    Args:
        model: whose parameters are trained.
        optimizer: a ``torch.optim.Optimizer``, or a framework's wrapper around one.
        folder: for the trace; made here, and refused if it holds one already. Where ``torch.distributed`` is
            initialized with several ranks, each has a trace of its own: ``FOLDER/rank0``, ``FOLDER/rank1``, ...
        scaler: found by itself when it scales a loss; give it if its state before that matters.
        scheduler: to have its state in the trace as well; the learning rates are there in any case.
        full: keep copies of all tensors too, so that a difference can be given in ULP. Disk: at each event the size
            of what is seen, in all about six times the parameters for each optimizer step.

    Yields:
        The folder of this trace.

    Raises:
        UserError: if ``folder`` cannot be used.
    """
    watched = Watched(model, unwrapped(optimizer, "optimizer"), scaler, unwrapped(scheduler, "scheduler"))
    folder = folder_of_rank(Path(folder))
    writer = Writer(folder, about(), full)
    try:
        with Recorder(watched, writer.write).watching():
            yield folder
    finally:
        writer.close()


def folder_of_rank(folder: Path) -> Path:
    """This rank's folder in ``folder``, which is ``folder`` where there is but one rank."""
    return folder / f"rank{rank()}" if ranks() > 1 else folder


def about() -> dict[str, str | int]:
    """What bits depend on beside the loop."""
    gpu = {"gpu": torch.cuda.get_device_name(), "cuda": str(torch.version.cuda)} if torch.cuda.is_initialized() else {}
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "ranks": ranks(),
        "machine": f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}",
        **gpu,
    }
