"""The parts of a run that are compared at each phase.

At each phase, the parts that it can change are compared. If a run writes, say, a parameter in the wrong phase, that
shows at ``STEPPED`` at the latest, since everything but the loss is compared there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Final, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from gradparity.parity.aliasing import clusters
from gradparity.parity.flatten_values import Unseen, Value, flatten
from gradparity.parity.other_model_state import extras, modes
from gradparity.training import Moment, Phase, Run

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
    "optimizer_state",
    "state_of",
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


def state_of(
    run: Run, parts: Iterable[Part], moment: Moment, rng: Mapping[str, Tensor], extra_state: Mapping[str, HasState]
) -> dict[Part, Mapping[str, Value]]:
    """Return the values of some parts of a run by name, not copied; ``None`` if a parameter has no gradient.

    Args:
        run: the run, stopped at ``moment``.
        parts: the parts to return.
        moment: holds the loss.
        rng: the state of the run's random stream, by device type.
        extra_state: other objects of the run, by name.
    """
    # Walking through a model takes longer than comparing small tensors, so it is done at most once for all parts.
    parameters = cache(lambda: trained(run.model, run.optimizer))
    buffers = cache(lambda: dict(run.model.named_buffers()))
    # Extra state may be costly to compute, so it is read once a step.
    at_rest = moment.phase == Phase.STEPPED
    values: dict[Part, Callable[[], Mapping[str, Value]]] = {
        Part.LOSS: lambda: {"loss": moment.loss},
        Part.GRADIENTS: lambda: {name: p.grad for name, p in parameters().items()},
        Part.ALIASING: lambda: aliases(parameters(), buffers()),
        Part.MODES: lambda: modes(run.model, parameters()),
        Part.PARAMETERS: parameters,
        Part.OPTIMIZER: lambda: optimizer_state(name_by_tensor(parameters()), run.optimizer),
        Part.SCALER: lambda: dict(flatten("", run.scaler.state_dict())),
        Part.SCHEDULER: lambda: dict(flatten("", run.scheduler.state_dict())),
        Part.BUFFERS: lambda: {**buffers(), **extras(run.model, extra_state=at_rest)},
        Part.RNG: lambda: rng,
        Part.EXTRA: lambda: dict(flatten("", {name: thing.state_dict() for name, thing in extra_state.items()})),
    }
    return {part: values[part]() for part in parts}


def trained(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the model's parameters by name, then the optimizer's others: a criterion's weights, a raw tensor.

    The others are named by their place, such as ``outside the model: group 1[0]``, so optimizers of the same structure
    give the same names.
    """
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    known = set(map(id, parameters.values()))
    for index, group in enumerate(optimizer.param_groups):
        for place, p in enumerate(group["params"]):
            if id(p) not in known:
                known.add(id(p))
                parameters[f"{OUTSIDE_MODEL}: group {index}[{place}]"] = p
    return parameters


def optimizer_state(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> dict[str, Value]:
    """Return moments and counters by parameter name, then the hyperparameters and members of each group."""
    return {**dict(moments(name_of, optimizer)), **dict(groups(name_of, optimizer))}


def moments(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> Iterator[tuple[str, Value]]:
    """Yield the optimizer's state of each parameter, by its name; of a tensor that is no longer one, by its place."""
    kept: Mapping[Any, Any] = optimizer.state  # keys are parameters; some optimizers also use a string, for a counter
    for index, (key, state) in enumerate(kept.items()):
        name = key if isinstance(key, str) else name_of.get(key)
        yield from flatten(name or f"{OUTSIDE_MODEL}: state {index}", state)


def groups(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> Iterator[tuple[str, Value]]:
    """Yield the hyperparameters of each parameter group, and the names of its members."""
    for index, group in enumerate(optimizer.param_groups):
        members = tuple(
            name_of.get(p, f"{OUTSIDE_MODEL}: group {index}[{place}]") for place, p in enumerate(group["params"])
        )
        yield from flatten(f"group {index}", {**group, "params": members})


def name_by_tensor(parameters: Mapping[str, Tensor]) -> dict[Tensor, str]:
    """Return the name of each parameter."""
    return {p: name for name, p in parameters.items()}


def aliases(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> dict[str, Value]:
    """Return, for each tensor of a model and each gradient, whether it shares memory with one before it.

    An in-place write to one of two such tensors changes the other; no run should do that by accident. The check uses
    the stretch of memory from the first to the last element, so two interleaved views count as shared.
    """
    tensors = dict(_tensors(parameters)) | dict(buffers)
    owner: dict[str, Value] = dict.fromkeys(tensors, OWN)
    for first, *others in clusters(tensors):
        owner |= dict.fromkeys(others, f"memory of {first}")
    return owner


def _tensors(parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, p in parameters.items():
        yield name, p
        if p.grad is not None:
            yield f"{name}.grad", p.grad
