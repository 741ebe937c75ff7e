"""Models of digits, each with one feature that training loops often get wrong."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradparity.parity.batch import Batch, summed_loss
from gradparity.studies.tasks.digits import CLASSES, cnn, mlp

BRIGHT = 19
"""A sum over the pixels of an image; a little more than half of the images are brighter."""


class Branches(nn.Module):
    """A branch that only some microbatches take, frozen weights, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(64, 32)
        self.frozen = nn.Linear(32, 32).requires_grad_(False)
        self.dark, self.bright = nn.Linear(32, CLASSES), nn.Linear(32, CLASSES)
        self.unused = nn.Parameter(torch.ones(3, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, 1, 8, 8]`` to ``[N, 10]``, by the branch that the first image's brightness selects."""
        hidden = self.trunk(images.flatten(1)).relu()
        branch = self.bright if images[0].sum() > BRIGHT else self.dark
        logits: Tensor = branch(hidden + self.frozen(hidden))
        return logits


class Additive(nn.Module):
    """Weights and biases in two parts that are used only as their sum: autograd makes one gradient for both."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.weight_update = (nn.Parameter(torch.randn(CLASSES, 64) / 8) for _ in range(2))
        self.bias, self.bias_update = (nn.Parameter(torch.zeros(CLASSES)) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, 1, 8, 8]`` to ``[N, 10]``."""
        return nn.functional.linear(images.flatten(1), self.weight + self.weight_update, self.bias + self.bias_update)


class Checkpointed(nn.Module):
    """A model whose block with BatchNorm and dropout is computed a second time in the backward pass."""

    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant
        self.stem = nn.Conv2d(1, 8, kernel_size=3, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.25)
        )
        self.head = nn.Linear(8 * 64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, 1, 8, 8]`` to ``[N, 10]``."""
        hidden = checkpoint(self.block, self.stem(images), use_reentrant=self.use_reentrant)
        logits: Tensor = self.head(hidden.flatten(1))
        return logits


def matrices() -> nn.Module:
    """Return a model of matrices only, for optimizers that take nothing else (Muon)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, CLASSES, bias=False))


def channels_last() -> nn.Module:
    """Return the CNN with filters, and so activations, in memory format channels-last."""
    return cnn().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # missing in torch's types


class Compiled(nn.Module):
    """The MLP under ``torch.compile``.

    ``fullgraph`` raises where it would otherwise silently fall back to eager mode: after too many recompilations, or
    for a module whose code is all PyTorch's own, such as ``nn.Sequential(...).compile()`` in torch 2.13.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mlp = mlp()
        self.compile(fullgraph=True, dynamic=True)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``[N, 1, 8, 8]`` to ``[N, 10]``."""
        logits: Tensor = self.mlp(images)
        return logits


def penalized_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Return cross-entropy plus the squared norm of its gradient by the images, so that training differentiates twice.

    The gradient is taken without a loss scale, as the gradient of a sum is large enough for fp16. Where it is not,
    scale and unscale it, as in PyTorch's notes "Automatic Mixed Precision examples", section "Gradient penalty".
    """
    images = batch.inputs.detach().requires_grad_()
    loss = summed_loss(model, batch._replace(inputs=images))
    with torch.autocast(images.device.type, enabled=False):  # a backward runs in the dtypes of its forward
        (gradient,) = torch.autograd.grad(loss, images, create_graph=True)
        return loss + gradient.square().sum()
