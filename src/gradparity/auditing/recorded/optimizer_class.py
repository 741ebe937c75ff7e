"""The class of an optimizer, by the names of its hyperparameters: a trace does not hold it."""

from collections.abc import Mapping
from functools import cache

import torch
from torch import nn
from torch.optim import Optimizer

UNKNOWN = "optimizer"

_OF_SCHEDULERS = {"initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"}
"""Names that learning rate schedulers add to a group."""

_DECOUPLED = "decoupled_weight_decay"
"""The only hyperparameter in which AdamW differs from Adam."""


def optimizer_class(group: Mapping[str, object]) -> str:
    """Return the name of torch's class whose groups have just these hyperparameters; ``optimizer`` if none has.

    >>> optimizer_class({"lr": 1.0})
    'optimizer'
    """
    names = frozenset(group) - _OF_SCHEDULERS - {"params"}
    return _classes().get((names, bool(group.get(_DECOUPLED))), UNKNOWN)


@cache
def _classes() -> Mapping[tuple[frozenset[str], bool], str]:
    found = {}
    for name, kind in vars(torch.optim).items():
        if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer:
            try:
                [group] = kind([nn.Parameter(torch.zeros(2, 2))]).param_groups  # type: ignore[call-arg]
            except (TypeError, ValueError):
                continue  # one of torch's that needs more than parameters
            found[frozenset(group) - {"params"}, bool(group.get(_DECOUPLED))] = name
    return found
