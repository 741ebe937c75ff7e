"""Two networks, two optimizers, one loss scaler: a small GAN that draws digits.

With one scaler for two optimizers the order matters: both losses are scaled by the same number, both gradients are
unscaled by it, both optimizers step, and only then is the scale updated, once.
"""

from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from gradparity.tasks.digits import digits_task
from gradparity.tasks.task import Task
from gradparity.training import Moment, Phase, Run, Window

Network = Literal["discriminator", "generator"]


class Gan(nn.Module):
    """A generator of images ``[N, 64]`` from noise ``[N, 8]``, and a discriminator of images."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())
        self.discriminator = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def loss(self, network: Network, images: Tensor) -> Tensor:
        """What ``network`` is trained on, summed over as many drawn images as there are ``images``."""
        drawn = self.generator(torch.randn(len(images), 8, dtype=images.dtype, device=images.device))
        if network == "generator":
            return F.softplus(-self.discriminator(drawn)).sum()
        real, fake = self.discriminator(images.flatten(1)), self.discriminator(drawn.detach())
        return F.softplus(-real).sum() + F.softplus(fake).sum()


def gan_task() -> Task:
    """The digits; what is trained is not a classifier, so the metric is not meant for it."""
    return digits_task(Gan)


class GanStep:
    """One step of both networks; ``run.optimizer`` is the generator's."""

    def __init__(self, of_discriminator: Optimizer) -> None:
        self.of_discriminator = of_discriminator

    def __call__(self, run: Run, window: Window[Any]) -> Iterator[Moment]:
        """Stops where :func:`gradparity.training.train_step` does, at K microbatches of each network."""
        networks: dict[Network, Optimizer] = {"discriminator": self.of_discriminator, "generator": run.optimizer}
        gan, stops = cast(Gan, run.model), 0
        for name, optimizer in networks.items():
            network = getattr(gan, name)
            # .backward() fills every leaf that it reaches, autograd.grad those that it is given: leave it only one.
            gan.requires_grad_(False)
            network.requires_grad_(True)
            optimizer.zero_grad(set_to_none=True)
            for microbatch in window.microbatches:
                with run.autocast():
                    loss = gan.loss(name, microbatch.inputs) / window.normalizer
                yield Moment(Phase.FORWARD, stops, loss.detach())
                run.route(run.scaler.scale(loss), list(network.parameters()))
                yield Moment(Phase.ACCUMULATED, stops)
                stops += 1
        gan.requires_grad_(True)

        for optimizer in networks.values():
            run.scaler.unscale_(optimizer)
        yield Moment(Phase.UNSCALED)
        for name in networks:
            run.clip(list(getattr(gan, name).parameters()))
        yield Moment(Phase.CLIPPED)

        scale = run.scaler.get_scale()
        for optimizer in networks.values():
            run.scaler.step(optimizer)
        run.scaler.update()
        if run.scaler.get_scale() >= scale:
            run.scheduler.step()
        yield Moment(Phase.STEPPED)
