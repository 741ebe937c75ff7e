"""Where a training runs: whether that is possible here, and what makes it the same a second time."""

import os

import torch

from gradparity.config import Device
from gradparity.errors import UserError


def require(device: Device) -> None:
    """Make ``device`` ready for trainings that are to be compared.

    Nobody has measured on a GPU yet whether that is enough: a null test, the reference against itself, says so there.

    Raises:
        UserError: if torch finds no GPU.
    """
    if device != "cuda":
        return
    if not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU here; use --device cpu")
    # What https://docs.pytorch.org/docs/stable/notes/randomness.html asks for; cuBLAS reads it when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False  # which algorithm is fastest is not always the same one
