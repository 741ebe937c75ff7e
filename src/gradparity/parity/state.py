"""The parts of a run that are compared at each phase.

At each phase, the parts that it can change are compared. If a run writes, say, a parameter in the wrong phase, that
shows at ``STEPPED`` at the latest, since everything but the loss is compared there.
"""

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from gradparity.parity.aliasing import clusters
from gradparity.parity.flatten_values import Unseen, Value, flatten
from gradparity.parity.other_model_state import extras, modes
from gradparity.training import Phase

__all__ = [
    "COMPARED",
    "OUTSIDE_MODEL",
    "OWN",
    "HasState",
    "Part",
    "Unseen",
    "Value",
    "aliases",
    "extras",
    "flatten",
    "groups",
    "modes",
    "moments",
    "name_by_tensor",
    "trained",
]


class Part(StrEnum):
    """A part of a run's state."""

    LOSS = "loss"
    GRADIENTS = "gradients"
    ALIASING = "aliasing"
    MODES = "modes"
    """Train or eval mode of each module, and ``requires_grad`` of parameters and gradients."""
    PARAMETERS = "parameters"
    """Parameters of the model, and other tensors that the optimizer trains."""
    OPTIMIZER = "optimizer"
    SCALER = "scaler"
    SCHEDULER = "scheduler"
    BUFFERS = "buffers"
    """Buffers, tensors kept as plain attributes of modules, and their extra state."""
    RNG = "rng"
    EXTRA = "also"
    """Other objects that a step changes: an average of the weights, a second optimizer."""


OWN = "memory of its own"

OUTSIDE_MODEL: Final = "outside the model"
"""The first words of the name of a tensor that the optimizer trains and that is not in the model."""

COMPARED: Mapping[Phase, tuple[Part, ...]] = {
    # A forward draws dropout masks and updates BatchNorm's running statistics.
    Phase.FORWARD: (Part.LOSS, Part.BUFFERS, Part.RNG),
    # So may a backward, if a checkpointed forward runs a second time.
    Phase.ACCUMULATED: (Part.GRADIENTS, Part.ALIASING, Part.MODES, Part.BUFFERS, Part.RNG),
    Phase.UNSCALED: (Part.GRADIENTS, Part.SCALER),
    Phase.CLIPPED: (Part.GRADIENTS,),
    Phase.STEPPED: tuple(part for part in Part if part != Part.LOSS),
}


class HasState(Protocol):
    """Anything with a ``state_dict`` that holds its live tensors."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return the state by name."""


def trained(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the model's parameters by name, then the optimizer's others: a criterion's weights, a raw tensor.

    The others are named by their place, such as ``outside the model: group 1[0]``, so optimizers of the same structure
    give the same names.
    """
    return with_outsiders(dict(model.named_parameters()), optimizer)


def with_outsiders(parameters: Mapping[str, Tensor], optimizer: Optimizer) -> dict[str, Tensor]:
    """Return ``parameters``, those of a model, and then the optimizer's others."""
    parameters = dict(parameters)
    known = set(map(id, parameters.values()))
    for index, group in enumerate(optimizer.param_groups):
        for place, p in enumerate(group["params"]):
            if id(p) not in known:
                known.add(id(p))
                parameters[f"{OUTSIDE_MODEL}: group {index}[{place}]"] = p
    return parameters


def moments(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> Iterator[tuple[str, Value]]:
    """Yield the optimizer's state of each parameter, by its name; of a tensor that is no longer one, by its place."""
    kept: Mapping[Any, Any] = optimizer.state  # keys are parameters; some optimizers also use a string, for a counter
    for index, (key, state) in enumerate(kept.items()):
        name = key if isinstance(key, str) else name_of.get(key)
        yield from flatten(name or f"{OUTSIDE_MODEL}: state {index}", state)


def groups(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> Iterator[tuple[str, Value]]:
    """Yield the hyperparameters of each parameter group, and the names of its members."""
    return groups_with(members(name_of, optimizer), optimizer)


def members(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> list[tuple[str, ...]]:
    """Return the names of the members of each parameter group."""
    return [
        tuple(name_of.get(p) or f"{OUTSIDE_MODEL}: group {index}[{place}]" for place, p in enumerate(group["params"]))
        for index, group in enumerate(optimizer.param_groups)
    ]


def groups_with(members: Iterable[tuple[str, ...]], optimizer: Optimizer) -> Iterator[tuple[str, Value]]:
    """Yield the hyperparameters of each parameter group, and the names of its members, which are given."""
    for index, (group, names) in enumerate(zip(optimizer.param_groups, members, strict=True)):
        yield from flatten(f"group {index}", {**group, "params": names})


def name_by_tensor(parameters: Mapping[str, Tensor]) -> dict[Tensor, str]:
    """Return the name of each parameter."""
    return {p: name for name, p in parameters.items()}


def aliases(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> dict[str, Value]:
    """Return, for each tensor of a model and each gradient, whether it shares memory with one before it.

    An in-place write to one of two such tensors changes the other; no run should do that by accident. The check uses
    the stretch of memory from the first to the last element, so two interleaved views count as shared.
    """
    tensors: dict[str, Tensor] = {}
    for name, p in parameters.items():
        tensors[name] = p
        if (gradient := p.grad) is not None:
            tensors[f"{name}.grad"] = gradient
    tensors |= buffers
    owner: dict[str, Value] = dict.fromkeys(tensors, OWN)
    for first, *others in clusters(tensors):
        owner |= dict.fromkeys(others, f"memory of {first}")
    return owner
