"""Models of digits, each with one thing that training loops trip over."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradparity.parity.batch import Batch, summed_loss
from gradparity.studies.tasks.digits import CLASSES, cnn, mlp

BRIGHT = 19
"""Sum of the pixels of an image; a little more than half of the digits are brighter."""


class Branches(nn.Module):
    """A branch that only some microbatches take, frozen weights, and a parameter that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(64, 32)
        self.frozen = nn.Linear(32, 32).requires_grad_(False)
        self.dark, self.bright = nn.Linear(32, CLASSES), nn.Linear(32, CLASSES)
        self.unused = nn.Parameter(torch.ones(3, 3))

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 1, 8, 8]`` → ``[N, 10]``, by the branch that the first image's brightness chooses."""
        hidden = self.trunk(images.flatten(1)).relu()
        branch = self.bright if images[0].sum() > BRIGHT else self.dark
        logits: Tensor = branch(hidden + self.frozen(hidden))
        return logits


class Additive(nn.Module):
    """Weights and biases in two parts that enter only as their sum: autograd makes one gradient for both."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.weight_update = (nn.Parameter(torch.randn(CLASSES, 64) / 8) for _ in range(2))
        self.bias, self.bias_update = (nn.Parameter(torch.zeros(CLASSES)) for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 1, 8, 8]`` → ``[N, 10]``."""
        return nn.functional.linear(images.flatten(1), self.weight + self.weight_update, self.bias + self.bias_update)


class Checkpointed(nn.Module):
    """A block with BatchNorm and dropout that is computed a second time in the backward pass."""

    def __init__(self, use_reentrant: bool) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant
        self.stem = nn.Conv2d(1, 8, kernel_size=3, padding=1)
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.25)
        )
        self.head = nn.Linear(8 * 64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 1, 8, 8]`` → ``[N, 10]``."""
        hidden = checkpoint(self.block, self.stem(images), use_reentrant=self.use_reentrant)
        logits: Tensor = self.head(hidden.flatten(1))
        return logits


def matrices() -> nn.Module:
    """Nothing but matrices, for optimizers that take nothing else (Muon)."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32, bias=False), nn.ReLU(), nn.Linear(32, CLASSES, bias=False))


def channels_last() -> nn.Module:
    """The CNN with filters, and so activations, in memory with the channels innermost."""
    return cnn().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # torch forgot it


class Compiled(nn.Module):
    """The MLP under ``torch.compile``.

    ``fullgraph`` raises where it would otherwise fall back to eager mode in silence: after too many recompilations,
    or for a module all of whose code is PyTorch's own, as ``nn.Sequential(...).compile()`` is in torch 2.13.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mlp = mlp()
        self.compile(fullgraph=True, dynamic=True)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 1, 8, 8]`` → ``[N, 10]``."""
        logits: Tensor = self.mlp(images)
        return logits


def penalized_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy and the squared norm of its gradient by the images, so that training differentiates twice.

    The gradient is taken without a loss scale: that of a sum is large enough for fp16. Where it is not, scale and
    unscale it, as PyTorch's notes "Automatic Mixed Precision examples" do in the section "Gradient penalty".
    """
    images = batch.inputs.detach().requires_grad_()
    loss = summed_loss(model, batch._replace(inputs=images))
    with torch.autocast(images.device.type, enabled=False):  # a backward runs in the dtypes of its forward
        (gradient,) = torch.autograd.grad(loss, images, create_graph=True)
        return loss + gradient.square().sum()
