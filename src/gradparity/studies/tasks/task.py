"""A task: a model, real data in two splits, and the metric that shows whether it learns."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from gradparity.parity.batch import Batch, Examples, summed_loss


def shuffled(examples: Examples, batch_size: int, order: torch.Generator) -> Iterator[Batch]:
    """Yield one epoch of microbatches, in an order drawn from ``order``; the last may be smaller."""
    permutation = torch.randperm(len(examples.inputs), generator=order)
    for chosen in torch.split(permutation.to(examples.inputs.device), batch_size):
        yield Examples(examples.inputs[chosen], examples.targets[chosen])


@dataclass(frozen=True)
class Task:
    """A small model to train, and the real data to train it on."""

    build: Callable[[], nn.Module]
    """Makes the model; its initial weights come from torch's global random state."""
    train: Examples
    held_out: Examples
    metric: Callable[[], Metric]
    """Makes a metric to be updated with logits and targets."""
    metric_name: str
    loss: Callable[[nn.Module, Batch], Tensor] = summed_loss
    """Returns a loss that is summed over the elements that :func:`gradparity.parity.batch.count` counts."""
    batches: Callable[[Examples, int, torch.Generator], Iterator[Batch]] = shuffled
    """Yields one epoch of microbatches of a given size; all that is random comes from the generator."""


def move_examples(examples: Examples, device: str, dtype: torch.dtype) -> Examples:
    """Return ``examples`` on ``device``, with inputs in ``dtype`` unless they are indices."""
    inputs = examples.inputs.to(dtype) if examples.inputs.is_floating_point() else examples.inputs
    return Examples(inputs.to(device), examples.targets.to(device))


def held_out_metric(model: nn.Module, task: Task, examples: Examples) -> float:
    """Return the task's metric over ``examples``, in eval mode; then restore the mode of every module."""
    metric = task.metric().to(examples.targets.device)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.no_grad():
        for inputs, targets in zip(*(torch.split(part, 256) for part in examples), strict=True):
            metric.update(model(inputs), targets)
    for module, training in modes.items():
        module.training = training
    return float(metric.compute())
