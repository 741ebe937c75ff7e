"""The loop around the step: epochs, a validation pass after each, and a checkpoint to go on from."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import torch

from gradparity.training.checkpoint import save
from gradparity.training.step import Run, train_step
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
    """Train ``run`` for some ``epochs``, in the mode that its model is in.

    Args:
        run: everything that takes part.
        batches: the microbatches of an epoch, iterated anew in each.
        held_out: the microbatches to validate on.
        epochs: ``range(n)``, or ``range(done, n)`` after :func:`gradparity.training.checkpoint.resume`.
        accumulation_steps: microbatches per optimizer step; the last step of an epoch may have fewer.
        count: how many samples or tokens of a microbatch enter ``run.loss``.
        checkpoint: where the state after the latest epoch is kept; a path, or an open file in memory.

    Returns:
        The mean validation loss after each epoch.
    """
    validation_losses = []
    for _ in epochs:
        for window in windows(batches, accumulation_steps, count):
            for _ in train_step(run, window):
                pass
        validation_losses.append(validate(run, held_out, count))
        save(run, checkpoint)
    return validation_losses


def validate(run: Run, held_out: Iterable[Any], count: Callable[[Any], int]) -> float:
    """The mean loss over ``held_out``, in eval mode; afterwards every module is in the mode it was in.

    In eval mode dropout draws no random number and BatchNorm moves no buffer, so the training does not notice.
    """
    modes = {module: module.training for module in run.model.modules()}
    run.model.eval()
    total = counted = 0.0
    with torch.no_grad():
        for batch in held_out:
            with run.autocast():
                total += float(run.loss(run.model, batch))
            counted += count(batch)
    for module, training in modes.items():
        module.training = training
    return total / counted
