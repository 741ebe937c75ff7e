"""What of a run is compared, and at which phase.

Each phase is compared in what it can change. Nothing escapes by that: a run that writes, say, a parameter in the
wrong phase is caught at ``STEPPED`` at the latest, where everything is compared.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from torch import Tensor, nn
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
    run: Run, part: Part, moment: Moment, rng: Mapping[str, Tensor], also: Mapping[str, HasState]
) -> Iterator[tuple[str, Value]]:
    """The values of one part of a run by name, not copied; ``None`` where a parameter has no gradient.

    Args:
        run: the run, stopped at ``moment``.
        part: which of its parts.
        moment: holds the loss.
        rng: the state of the run's random stream, by device type.
        also: what else the lane has, by name.
    """
    match part:
        case Part.LOSS:
            yield "loss", moment.loss
        case Part.GRADIENTS:
            yield from ((name, p.grad) for name, p in run.model.named_parameters())
        case Part.ALIASING:
            yield from aliases(dict(run.model.named_parameters()), dict(run.model.named_buffers()))
        case Part.PARAMETERS:
            yield from run.model.named_parameters()
        case Part.OPTIMIZER:
            yield from optimizer_state(run.model, run.optimizer)
        case Part.SCALER:
            yield from flat("", run.scaler.state_dict())
        case Part.SCHEDULER:
            yield from flat("", run.scheduler.state_dict())
        case Part.BUFFERS:
            yield from run.model.named_buffers()
        case Part.RNG:
            yield from rng.items()
        case Part.ALSO:
            for name, thing in also.items():
                yield from flat(name, thing.state_dict())


def optimizer_state(model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, Value]]:
    """Moments and counters by parameter name, then the hyperparameters of each group and whom it holds."""
    name_of = names(dict(model.named_parameters()))
    yield from moments(name_of, optimizer)
    yield from groups(name_of, optimizer)


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
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, list | tuple) and not all(isinstance(item, str) for item in value):
        for index, item in enumerate(value):
            yield from flat(f"{name}[{index}]", item)
    elif isinstance(value, Tensor | int | float | str | None):
        yield name, value
    elif isinstance(value, list | tuple):
        yield name, tuple(value)
    else:
        yield name, type(value).__qualname__


def aliases(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Iterator[tuple[str, Value]]:
    """For each tensor of a model, and each gradient, whether it lies in the memory of one that comes before it.

    Writing one of two such tensors in place changes the other: no run should do that by accident. Compared by the
    stretch of memory from the first to the last element, so two interleaved views count as well.
    """
    tensors = dict(_tensors(parameters)) | dict(buffers)
    order = list(tensors)
    owner = dict[str, str]()
    for cluster in _clusters(tensors):
        first = min(cluster, key=order.index)
        owner |= {name: f"memory of {first}" for name in cluster if name != first}
    for name in order:
        yield name, owner.get(name, OWN)


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
            last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
            start = tensor.data_ptr()
            yield start, start + (last + 1) * tensor.element_size(), name


def _tensors(parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, p in parameters.items():
        yield name, p
        if p.grad is not None:
            yield f"{name}.grad", p.grad._values() if p.grad.is_sparse else p.grad
