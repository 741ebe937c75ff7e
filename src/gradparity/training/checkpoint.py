"""A checkpoint that leaves no mark: a resumed run makes the same updates, bit for bit, as an uninterrupted one.

Six things have a state: the model, the optimizer, the scheduler, the loss scaler, the random numbers, and the loop
around them, which counts epochs. Whichever is left out starts anew, and nothing raises.

Not in the file is what the program itself sets when it builds the run: train and eval modes, ``requires_grad``, plain
attributes of modules, generators and samplers of its own, and the position within an epoch.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch

from gradparity.training.exact_restore import buffers_outside, load_buffers, load_optimizer, plain
from gradparity.training.random_numbers import random_state, restore_random
from gradparity.training.step import Run


def save(run: Run, file: Path | IO[bytes], done: int = 0) -> None:
    """Write the state of ``run`` between two optimizer steps over what ``file`` holds.

    Args:
        run: everything that takes part.
        file: a path, or an open file in memory.
        done: the number of epochs that are finished.

    Raises:
        ValueError: if :func:`resume` could not read the state; ``file`` then holds what it held before.
    """
    with written_over(file) as opened:
        torch.save(state_of(run, done), opened)
        check_it_loads(opened)


def state_of(run: Run, done: int = 0) -> dict[str, Any]:
    """Return everything that :func:`save` writes; its tensors are those of ``run``, not copies."""
    return {
        "done": done,
        "model": run.model.state_dict(),
        "buffers": buffers_outside(run.model),
        "optimizer": plain(run.optimizer.state_dict()),
        "scheduler": plain(run.scheduler.state_dict()),
        "scaler": plain(run.scaler.state_dict()),
        "random": random_state(),
    }


def resume(run: Run, file: Path | IO[bytes]) -> int:
    """Bring ``run``, built as it was at its beginning, to where :func:`save` left it.

    The optimizer comes with its learning rates, so the scheduler, which is built first, may be loaded before or after.

    Returns:
        The number of epochs that are finished: go on with ``range(done, n)``.
    """
    if not isinstance(file, Path):
        file.seek(0)
    state = torch.load(file, weights_only=True)  # reads tensors and numbers, and runs no code from the file
    run.model.load_state_dict(state["model"])
    load_buffers(run.model, state["buffers"])
    load_optimizer(run.optimizer, state["optimizer"])
    run.scheduler.load_state_dict(state["scheduler"])
    run.scaler.load_state_dict(state["scaler"])
    restore_random(state["random"])
    done: int = state["done"]
    return done


def check_it_loads(opened: IO[bytes]) -> None:
    """Raise ``ValueError`` if :func:`resume` could not read what was written into ``opened``."""
    opened.seek(0)
    try:
        torch.load(opened, weights_only=True, map_location="meta")  # in no memory
    except NotImplementedError:
        return  # a quantized tensor has no form without memory
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        kind = found[1] if found else "something"
        raise ValueError(f"the state holds {kind}, which no checkpoint can; make it a number or a tensor") from error


@contextmanager
def written_over(file: Path | IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield a file to write into, which takes the place of ``file`` at the end of the block: all of it or nothing.

    If the process is killed here, or the disk is full, the checkpoint before is still there. An open file is written
    in one piece at the end; give a path where a kill or a full disk must not spoil it.
    """
    if not isinstance(file, Path):
        yield (whole := BytesIO())
        file.seek(0)
        file.truncate()
        file.write(whole.getbuffer())
        return
    partial = file.with_name(f"{file.name}.partial")
    try:
        with partial.open("w+b") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())  # else a power cut may leave the new name, and under it nothing
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
