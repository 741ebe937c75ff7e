"""The loop around the step: epochs, a validation pass after each, and a checkpoint to go on from."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from gradparity.training.checkpoint import save
from gradparity.training.random_numbers import random_state, restore_random
from gradparity.training.step import Run, take_step
from gradparity.training.windows import windows


def train(
    run: Run,
    batches: Iterable[Any],
    held_out: Iterable[Any],
    *,
    epochs: range,
    accumulation_steps: int,
    count: Callable[[Any], int],
    checkpoint: Path | IO[bytes],
) -> list[float]:
    """Train ``run`` for some ``epochs``, in train mode.

    A module that is to stay in eval mode, as a frozen BatchNorm, overrides its ``train`` method.

    Args:
        run: everything that takes part.
        batches: the microbatches of an epoch, iterated anew in each; ``set_epoch`` of a sampler is called.
        held_out: the microbatches to validate on.
        epochs: ``range(n)``, or ``range(done, n)`` after :func:`gradparity.training.checkpoint.resume`.
        accumulation_steps: microbatches per optimizer step; the last step of an epoch may have fewer.
        count: how many samples or tokens of a microbatch enter ``run.loss``.
        checkpoint: where the state after the latest epoch is kept; a path, or an open file in memory.

    Returns:
        The mean validation loss after each epoch.

    Raises:
        ValueError: if batches are an iterator, which is at its end after one epoch, or there is nothing to validate on.
    """
    if len(epochs) > 1 and (isinstance(batches, Iterator) or isinstance(held_out, Iterator)):
        raise ValueError("an iterator is at its end after one epoch; give a list or a DataLoader")
    validation_losses = []
    run.model.train()
    for epoch in epochs:
        set_epoch(batches, epoch)
        for window in windows(batches, accumulation_steps, count):
            take_step(run, window)
        validation_losses.append(validate(run, held_out, count))
        save(run, checkpoint, epoch + 1)
    return validation_losses


def set_epoch(batches: Iterable[Any], epoch: int) -> None:
    """Call ``set_epoch`` on the parts of ``batches`` that have it; else a ``DistributedSampler`` repeats one order."""
    by_batch = getattr(batches, "batch_sampler", None)
    own = [getattr(batches, name, None) for name in ("sampler", "dataset")]
    part: Any
    for part in (batches, by_batch, getattr(by_batch, "sampler", None), *own):
        if hasattr(part, "set_epoch"):
            part.set_epoch(epoch)


def validate(run: Run, held_out: Iterable[Any], count: Callable[[Any], int]) -> float:
    """Return the mean loss over ``held_out``, in eval mode.

    Raises:
        ValueError: if ``held_out`` holds no sample or token.
    """
    total = counted = 0.0
    with unnoticed(run.model), torch.no_grad():
        for batch in held_out:
            with run.autocast():
                total += float(run.loss(run.model, batch))
            counted += count(batch)
    if not counted:
        raise ValueError("held_out holds no sample or token to validate on")
    return total / counted


@contextmanager
def unnoticed(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into eval mode, and restore everything at the end of the block, so that training is not affected.

    Every module gets back its own mode, and the random numbers their state: a DataLoader draws one too. In eval mode
    BatchNorm updates no buffer.
    """
    modes = {module: module.training for module in model.modules()}
    random = random_state()
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        restore_random(random)
