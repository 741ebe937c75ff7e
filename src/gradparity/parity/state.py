"""What of a run is compared, and at which phase.

Each phase is compared in what it can change. Nothing escapes by that: a run that writes, say, a parameter in the
wrong phase is caught at ``STEPPED`` at the latest, where everything is compared.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache
from typing import Any, Final, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from gradparity.parity.aliasing import clusters
from gradparity.parity.leaves import Unseen, Value, flat
from gradparity.parity.modes_and_extras import extras, modes
from gradparity.training import Moment, Phase, Run

__all__ = [
    "COMPARED",
    "OUTSIDE",
    "OWN",
    "HasState",
    "Part",
    "Unseen",
    "Value",
    "aliases",
    "extras",
    "flat",
    "groups",
    "modes",
    "moments",
    "names",
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
    """Which modules train, and which parameters and gradients require a gradient."""
    PARAMETERS = "parameters"
    """Those of the model, and what the optimizer trains beside them."""
    OPTIMIZER = "optimizer"
    SCALER = "scaler"
    SCHEDULER = "scheduler"
    BUFFERS = "buffers"
    """Buffers, tensors kept as plain attributes of modules, and their extra state."""
    RNG = "rng"
    ALSO = "also"
    """What a lane has beside its run: an average of the weights, a second optimizer."""


OWN = "memory of its own"

OUTSIDE: Final = "outside the model"
"""How the names begin of what the optimizer trains beside the model."""

COMPARED: Mapping[Phase, tuple[Part, ...]] = {
    # A forward draws dropout masks and moves BatchNorm's running statistics.
    Phase.FORWARD: (Part.LOSS, Part.BUFFERS, Part.RNG),
    # So may a backward, where a checkpointed forward runs a second time.
    Phase.ACCUMULATED: (Part.GRADIENTS, Part.ALIASING, Part.MODES, Part.BUFFERS, Part.RNG),
    Phase.UNSCALED: (Part.GRADIENTS, Part.SCALER),
    Phase.CLIPPED: (Part.GRADIENTS,),
    Phase.STEPPED: tuple(part for part in Part if part != Part.LOSS),
}


class HasState(Protocol):
    """Anything with a ``state_dict`` that holds its live tensors."""

    def state_dict(self) -> Mapping[str, Any]:
        """Its state by name."""


def state_of(
    run: Run, parts: Iterable[Part], moment: Moment, rng: Mapping[str, Tensor], also: Mapping[str, HasState]
) -> dict[Part, Mapping[str, Value]]:
    """The values of some parts of a run by name, not copied; ``None`` where a parameter has no gradient.

    Args:
        run: the run, stopped at ``moment``.
        parts: which of its parts.
        moment: holds the loss.
        rng: the state of the run's random stream, by device type.
        also: what else the lane has, by name.
    """
    # To walk through a model takes longer than to compare small tensors: once for all parts, if at all.
    parameters = cache(lambda: trained(run.model, run.optimizer))
    buffers = cache(lambda: dict(run.model.named_buffers()))
    # It may be costly to ask a module for its extra state, so once a step.
    at_rest = moment.phase == Phase.STEPPED
    values: dict[Part, Callable[[], Mapping[str, Value]]] = {
        Part.LOSS: lambda: {"loss": moment.loss},
        Part.GRADIENTS: lambda: {name: p.grad for name, p in parameters().items()},
        Part.ALIASING: lambda: aliases(parameters(), buffers()),
        Part.MODES: lambda: modes(run.model, parameters()),
        Part.PARAMETERS: parameters,
        Part.OPTIMIZER: lambda: optimizer_state(names(parameters()), run.optimizer),
        Part.SCALER: lambda: dict(flat("", run.scaler.state_dict())),
        Part.SCHEDULER: lambda: dict(flat("", run.scheduler.state_dict())),
        Part.BUFFERS: lambda: {**buffers(), **extras(run.model, extra_state=at_rest)},
        Part.RNG: lambda: rng,
        Part.ALSO: lambda: dict(flat("", {name: thing.state_dict() for name, thing in also.items()})),
    }
    return {part: values[part]() for part in parts}


def trained(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return the model's parameters by name, then what else the optimizer holds: a criterion's weights, a raw tensor.

    The latter are named by their place, such as ``outside the model: group 1[0]``, so optimizers of one structure give
    the same names.
    """
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    known = set(map(id, parameters.values()))
    for index, group in enumerate(optimizer.param_groups):
        for place, p in enumerate(group["params"]):
            if id(p) not in known:
                known.add(id(p))
                parameters[f"{OUTSIDE}: group {index}[{place}]"] = p
    return parameters


def optimizer_state(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> dict[str, Value]:
    """Moments and counters by parameter name, then the hyperparameters of each group and whom it holds."""
    return {**dict(moments(name_of, optimizer)), **dict(groups(name_of, optimizer))}


def moments(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> Iterator[tuple[str, Value]]:
    """What the optimizer keeps of each parameter, by its name, and of what is no parameter any more, by its place."""
    kept: Mapping[Any, Any] = optimizer.state  # by parameter, and some optimizers keep a counter by a word
    for index, (key, state) in enumerate(kept.items()):
        name = key if isinstance(key, str) else name_of.get(key)
        yield from flat(name or f"{OUTSIDE}: state {index}", state)


def groups(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> Iterator[tuple[str, Value]]:
    """The hyperparameters of each parameter group, and whom it holds."""
    for index, group in enumerate(optimizer.param_groups):
        members = tuple(name_of.get(p, f"{OUTSIDE}: group {index}[{place}]") for place, p in enumerate(group["params"]))
        yield from flat(f"group {index}", {**group, "params": members})


def names(parameters: Mapping[str, Tensor]) -> dict[Tensor, str]:
    """The name of each parameter."""
    return {p: name for name, p in parameters.items()}


def aliases(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> dict[str, Value]:
    """For each tensor of a model, and each gradient, whether it lies in the memory of one that comes before it.

    Writing one of two such tensors in place changes the other: no run should do that by accident. Compared by the
    stretch of memory from the first to the last element, so two interleaved views count as well.
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
