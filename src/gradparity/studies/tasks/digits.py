"""Handwritten digits: 1,797 real images of 8 × 8 pixels, which are part of the scikit-learn package."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from gradparity.errors import UserError
from gradparity.parity.batch import Batch, Examples, summed_loss
from gradparity.studies.tasks.task import Task

CLASSES = 10


def mlp() -> nn.Module:
    """Return a multilayer perceptron: 64 pixels → 64 → 64 → 10 logits."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, CLASSES)
    )


def cnn() -> nn.Module:
    """Return two convolutions with BatchNorm (buffers) and dropout (random draws): ``[N, 1, 8, 8]`` → 10 logits."""
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(32 * 4 * 4, CLASSES),
    )


def digits_mlp() -> Task:
    """Return the digits for a multilayer perceptron."""
    return digits_task(mlp)


def digits_cnn() -> Task:
    """Return the digits for a convolutional network."""
    return digits_task(cnn)


def digits_task(build: Callable[[], nn.Module], loss: Callable[[nn.Module, Batch], Tensor] = summed_loss) -> Task:
    """Return the digits for any model of images ``[N, 1, 8, 8]`` with ten logits; every fifth image is held out."""
    images, labels = _load()
    held_out = torch.arange(len(labels)) % 5 == 0
    accuracy = partial(MulticlassAccuracy, num_classes=CLASSES, average="micro")
    return Task(
        build=build,
        train=Examples(images[~held_out], labels[~held_out]),
        held_out=Examples(images[held_out], labels[held_out]),
        metric=accuracy,
        metric_name="accuracy",
        loss=loss,
    )


def _load() -> tuple[Tensor, Tensor]:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise UserError("the images come with scikit-learn: pip install 'gradparity[experiments]'") from None
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(digits.target)
