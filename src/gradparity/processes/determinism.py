"""The device of a training: check that it is available, and make its results repeat."""

import os
from typing import Any, Literal, TypeAlias

import torch

from gradparity.errors import UserError

Device: TypeAlias = Literal["cpu", "cuda"]


def prepare_device(device: str | Device) -> None:
    """Make ``device`` ready for trainings that are to be compared; call it in each process, before CUDA is used.

    On a GPU every operation then has one result, or raises. :func:`gradparity.errors.without_deterministic_form` says
    which operation, and how to go on. The CPU needs nothing: with a fixed number of threads its results repeat.

    Raises:
        UserError: if torch finds no GPU.
    """
    if device != "cuda":
        return
    if not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU here; use --device cpu")
    # Required by https://docs.pytorch.org/docs/stable/notes/randomness.html; cuBLAS reads it on first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Not with warn_only: attention would then only warn, and its gradients would differ from run to run.
    torch.use_deterministic_algorithms(True)
    # By default each new tensor would now be filled: that costs time and hides reads of uninitialized memory.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # untyped in torch
    torch.backends.cudnn.benchmark = False  # the fastest algorithm is not always the same one


def hide_gpus() -> None:
    """Hide all GPUs from torch, in this process and in those that it starts; call it before torch has looked for one.

    This is for processes that train on the CPU, and it cannot be undone. It is needed because torch on a CPU behaves
    differently if it finds GPUs: every ``step`` of an optimizer asks them whether they capture a graph, and FSDP uses
    them. In a fork of a process that has used GPUs, both fail.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None:  # torch may know of it already
        gpus: Any = torch.get_device_module(accelerator)
        gpus.is_available, gpus.device_count = lambda: False, lambda: 0


def prepare_worker(device: str | Device) -> None:
    """Make a new process ready to train on ``device``, with one thread; on the CPU it finds no GPU.

    Flags of the process that started it do not apply here.

    Raises:
        UserError: if torch finds no GPU, and ``device`` is one.
    """
    torch.set_num_threads(1)
    if device == "cuda":
        prepare_device(device)
    else:
        hide_gpus()
