"""Where a training runs: whether that is possible here, and what makes it the same a second time."""

import os
from typing import Any, Literal, TypeAlias

import torch

from gradparity.errors import UserError

Device: TypeAlias = Literal["cpu", "cuda"]


def require(device: str | Device) -> None:
    """Make ``device`` ready for trainings that are to be compared; call it in each process, before CUDA is used.

    On a GPU every operation then has one result, or raises; :func:`gradparity.errors.without_deterministic_form` says
    which, and how to go on. The CPU needs nothing: with a fixed number of threads its results repeat.

    Raises:
        UserError: if torch finds no GPU.
    """
    if device != "cuda":
        return
    if not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU here; use --device cpu")
    # What https://docs.pytorch.org/docs/stable/notes/randomness.html asks for; cuBLAS reads it when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Without warn_only: with it, attention only warns, and its gradients differ from one run to the next.
    torch.use_deterministic_algorithms(True)
    # Else each new tensor is filled first, which costs time, and hides what reads memory that nobody wrote.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # untyped in torch
    torch.backends.cudnn.benchmark = False  # which algorithm is fastest is not always the same one


def without_gpus() -> None:
    """Let torch find no GPU in this process, nor in those that it starts; call it before torch has looked for one.

    For processes that train on the CPU, and for good: what torch does on a CPU depends on the GPUs that it finds. Every
    ``step`` of an optimizer asks them whether they capture a graph, FSDP takes them for its own, and a fork of a
    process that has used them can do neither.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None:  # torch may know of it already
        gpus: Any = torch.get_device_module(accelerator)
        gpus.is_available, gpus.device_count = lambda: False, lambda: 0
