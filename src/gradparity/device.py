"""Where a training runs: whether that is possible here, and what makes it the same a second time."""

import os

import torch

from gradparity.config import Device
from gradparity.errors import UserError


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
