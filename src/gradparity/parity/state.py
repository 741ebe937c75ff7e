"""What of a run is compared, and at which phase.

Each phase is compared in what it can change. Nothing escapes by that: a run that writes, say, a parameter in the
wrong phase is caught at ``STEPPED`` at the latest, where everything is compared.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache
from types import NoneType
from typing import Any, Final, Protocol, TypeAlias

from torch import Tensor
from torch.optim import Optimizer

from gradparity.training import Moment, Phase, Run

Value: TypeAlias = Tensor | int | float | str | bool | tuple[str, ...] | None


class Part(StrEnum):
    """A part of a run's state."""

    LOSS = "loss"
    GRADIENTS = "gradients"
    ALIASING = "aliasing"
    PARAMETERS = "parameters"
    OPTIMIZER = "optimizer"
    SCALER = "scaler"
    SCHEDULER = "scheduler"
    BUFFERS = "buffers"
    RNG = "rng"
    ALSO = "also"
    """What a lane has beside its run: an average of the weights, a second optimizer."""


LEAVES: Final = (Tensor, int, float, str, NoneType)

OWN = "memory of its own"
FOREIGN = "a tensor that is no parameter of the model"

COMPARED: Mapping[Phase, tuple[Part, ...]] = {
    # A forward draws dropout masks and moves BatchNorm's running statistics.
    Phase.FORWARD: (Part.LOSS, Part.BUFFERS, Part.RNG),
    # So may a backward, where a checkpointed forward runs a second time.
    Phase.ACCUMULATED: (Part.GRADIENTS, Part.ALIASING, Part.BUFFERS, Part.RNG),
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
    parameters = cache(lambda: dict(run.model.named_parameters()))
    buffers = cache(lambda: dict(run.model.named_buffers()))
    values: dict[Part, Callable[[], Mapping[str, Value]]] = {
        Part.LOSS: lambda: {"loss": moment.loss},
        Part.GRADIENTS: lambda: {name: p.grad for name, p in parameters().items()},
        Part.ALIASING: lambda: aliases(parameters(), buffers()),
        Part.PARAMETERS: parameters,
        Part.OPTIMIZER: lambda: optimizer_state(names(parameters()), run.optimizer),
        Part.SCALER: lambda: dict(flat("", run.scaler.state_dict())),
        Part.SCHEDULER: lambda: dict(flat("", run.scheduler.state_dict())),
        Part.BUFFERS: buffers,
        Part.RNG: lambda: rng,
        Part.ALSO: lambda: {k: v for name, thing in also.items() for k, v in flat(name, thing.state_dict())},
    }
    return {part: values[part]() for part in parts}


def optimizer_state(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> dict[str, Value]:
    """Moments and counters by parameter name, then the hyperparameters of each group and whom it holds."""
    return {**dict(moments(name_of, optimizer)), **dict(groups(name_of, optimizer))}


def moments(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> Iterator[tuple[str, Value]]:
    """What the optimizer keeps of each parameter, by its name."""
    for p, state in optimizer.state.items():
        yield from flat(name_of.get(p, FOREIGN), state)


def groups(name_of: Mapping[Tensor, str], optimizer: Optimizer) -> Iterator[tuple[str, Value]]:
    """The hyperparameters of each parameter group, and whom it holds."""
    for index, group in enumerate(optimizer.param_groups):
        members = tuple(name_of.get(p, FOREIGN) for p in group["params"])
        yield from flat(f"group {index}", {**group, "params": members})


def names(parameters: Mapping[str, Tensor]) -> dict[Tensor, str]:
    """The name of each parameter."""
    return {p: name for name, p in parameters.items()}


def flat(name: str, value: object) -> Iterator[tuple[str, Value]]:
    """The leaves of nested dicts and lists, each with its path as name; of unknown objects only the type."""
    if isinstance(value, LEAVES):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, list | tuple) and not all(isinstance(item, str) for item in value):
        for index, item in enumerate(value):
            yield from flat(f"{name}[{index}]", item)
    elif isinstance(value, list | tuple):
        yield name, tuple(value)
    else:
        yield name, type(value).__qualname__


def aliases(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> dict[str, Value]:
    """For each tensor of a model, and each gradient, whether it lies in the memory of one that comes before it.

    Writing one of two such tensors in place changes the other: no run should do that by accident. Compared by the
    stretch of memory from the first to the last element, so two interleaved views count as well.
    """
    tensors = dict(_tensors(parameters)) | dict(buffers)
    owner: dict[str, Value] = dict.fromkeys(tensors, OWN)
    for cluster in _clusters(tensors):
        together = set(cluster)
        first = next(name for name in tensors if name in together)
        owner |= {name: f"memory of {first}" for name in cluster if name != first}
    return owner


def _clusters(tensors: Mapping[str, Tensor]) -> Iterator[list[str]]:
    """The names of tensors whose stretches of memory overlap, where there are two or more."""
    cluster, reach = list[str](), 0
    for start, end, name in sorted(_spans(tensors)):
        if start >= reach:
            if len(cluster) > 1:
                yield cluster
            cluster = []
        cluster.append(name)
        reach = max(reach, end)
    if len(cluster) > 1:
        yield cluster


def _spans(tensors: Mapping[str, Tensor]) -> Iterator[tuple[int, int, str]]:
    for name, tensor in tensors.items():
        if tensor.numel():
            start = tensor.data_ptr()
            yield start, start + _reach(tensor), name


def _reach(tensor: Tensor) -> int:
    """Bytes from the first to the last element."""
    if tensor.is_contiguous():
        return tensor.nbytes
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


def _tensors(parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, p in parameters.items():
        yield name, p
        if p.grad is not None:
            yield f"{name}.grad", p.grad._values() if p.grad.is_sparse else p.grad
