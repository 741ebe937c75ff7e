"""Two networks, two optimizers, one loss scaler: a small GAN that draws digits.

With one scaler for two optimizers the order matters. Both losses are scaled by the same number, both gradients are
unscaled by it, and both optimizers step. Only then is the scale updated, once.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from gradparity.studies.tasks.digits import digits_task
from gradparity.studies.tasks.task import Task
from gradparity.training import Moment, Phase, Run, Window


class Gan(nn.Module):
    """A generator of images ``[N, 64]`` from noise ``[N, 8]``, and a discriminator of images."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())
        self.discriminator = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def discriminator_loss(self, images: Tensor) -> Tensor:
        """Return the loss, summed over ``images`` ``[N, 1, 8, 8]`` and as many drawn ones: low if it separates them."""
        real, drawn = self.discriminator(images.flatten(1)), self.discriminator(self.drawn(images))
        return F.softplus(-real).sum() + F.softplus(drawn).sum()

    def generator_loss(self, images: Tensor) -> Tensor:
        """Return the loss, summed over as many drawn images as there are ``images``: low if they pass as real."""
        return F.softplus(-self.discriminator(self.drawn(images))).sum()

    def drawn(self, images: Tensor) -> Tensor:
        """Return as many new images as there are ``images``, in their dtype and on their device."""
        pictures: Tensor = self.generator(torch.randn(len(images), 8, dtype=images.dtype, device=images.device))
        return pictures


class Turn(NamedTuple):
    """One of the two networks, with its optimizer and its loss."""

    network: nn.Module
    optimizer: Optimizer
    loss: Callable[[Tensor], Tensor]


def gan_step(run: Run, window: Window[Any], *, discriminator_optimizer: Optimizer) -> Iterator[Moment]:
    """Make one optimizer step of both networks; ``run.optimizer`` is the generator's.

    It stops where :func:`gradparity.training.train_step` does, with twice the microbatches: K for the discriminator,
    then K for the generator, which trains against the discriminator of the previous step.

    Source: PyTorch's notes "Automatic Mixed Precision examples", section "Working with Multiple Models, Losses, and
    Optimizers".
    """
    gan, forward = cast(Gan, run.model), count()
    turns = (
        Turn(gan.discriminator, discriminator_optimizer, gan.discriminator_loss),
        Turn(gan.generator, run.optimizer, gan.generator_loss),
    )

    for network, optimizer, loss_of in turns:
        # Each loss reaches both networks, and .backward() fills every p.grad that it reaches: leave only this network.
        gan.requires_grad_(False)
        network.requires_grad_(True)
        optimizer.zero_grad(set_to_none=True)
        for microbatch, index in zip(window.microbatches, forward, strict=False):
            with run.autocast():
                loss = loss_of(microbatch.inputs) / window.normalizer
            yield Moment(Phase.FORWARD, index, loss.detach())
            run.route(run.scaler.scale(loss), list(network.parameters()))
            yield Moment(Phase.ACCUMULATED, index)
    gan.requires_grad_(True)

    for turn in turns:
        run.scaler.unscale_(turn.optimizer)
    yield Moment(Phase.UNSCALED)
    for turn in turns:
        run.clip(list(turn.network.parameters()))
    yield Moment(Phase.CLIPPED)

    scale = run.scaler.get_scale()
    for turn in turns:
        run.scaler.step(turn.optimizer)  # skips an optimizer whose own gradients hold an inf or NaN
    # After both: a scale updated in between would not be the one that the second gradient was multiplied by.
    run.scaler.update()
    if run.scaler.get_scale() >= scale > 1e-38:
        run.scheduler.step()
    yield Moment(Phase.STEPPED)


def gan_task() -> Task:
    """Return the digits for a GAN; it is no classifier, so the loss and metric of the task are not meant for it."""
    return digits_task(Gan)
