"""A checkpoint that leaves no mark: who goes on from it makes the same updates, bit for bit, as who never stopped.

Five things have a state: the model with its buffers, the optimizer, the scheduler, the loss scaler, and the random
numbers. Whichever is left out starts anew, and nothing raises.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch

from gradparity.training.step import Run


def save(run: Run, file: Path | IO[bytes]) -> None:
    """Write the state of ``run`` between two optimizer steps over what ``file`` holds."""
    state = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scheduler": run.scheduler.state_dict(),
        "scaler": run.scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all(),
    }
    with written_over(file) as opened:
        torch.save(state, opened)


def resume(run: Run, file: Path | IO[bytes]) -> None:
    """Bring ``run``, built as it was at its beginning, to where :func:`save` left it.

    The optimizer comes with its learning rates, so the scheduler, which is built first, may be loaded before or after.
    """
    if not isinstance(file, Path):
        file.seek(0)
    state = torch.load(file, weights_only=True)  # reads tensors and numbers, and runs no code from the file
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.scheduler.load_state_dict(state["scheduler"])
    run.scaler.load_state_dict(state["scaler"])
    torch.set_rng_state(state["rng"])
    torch.cuda.set_rng_state_all(state["cuda_rng"])


@contextmanager
def written_over(file: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """What is written inside the block takes the place of what ``file`` holds: of a path, all of it or nothing.

    So whoever is killed here, or finds the disk full, still has the checkpoint before.
    """
    if not isinstance(file, Path):
        file.seek(0)
        file.truncate()
        yield file
        return
    partial = file.with_name(f"{file.name}.partial")
    try:
        with partial.open("wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())  # else a power cut may leave the new name, and under it nothing
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
