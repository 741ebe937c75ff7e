"""The digits task with a model that sends only dark microbatches through one of its layers."""

from dataclasses import replace

from torch import Tensor, nn

from gradparity.studies.tasks import Task
from gradparity.studies.tasks.digits import CLASSES, digits_mlp

DARK = 0.3
"""Mean brightness, about that of all digits: about half of the microbatches are darker."""


class Branching(nn.Module):
    """A model ``[N, 1, 8, 8]`` → 10 logits; a dark microbatch passes through one more hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(64, 32)
        self.dark = nn.Linear(32, 32)
        self.decode = nn.Linear(32, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of ``images``. The loss depends on the parameters of ``dark`` in dark microbatches only."""
        x = self.encode(images.flatten(1)).tanh()
        if images.mean() < DARK:
            x = x + self.dark(x).tanh()
        logits: Tensor = self.decode(x)
        return logits


def digits_branching() -> Task:
    """Return the digits task with the branching model."""
    return replace(digits_mlp(), build=Branching)
