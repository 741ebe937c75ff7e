"""What there is to see of a loop at each of its events: live values by part and name, to be read at once.

Each phase shows what went into it beside what came out: parameters and loss scale at the first forward of a step,
learning rates when the optimizer is about to read them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from gradparity.parity.random_stream import generator_states
from gradparity.parity.state import (
    OUTSIDE,
    OWN,
    Part,
    Value,
    aliases,
    extras,
    flat,
    groups,
    modes,
    moments,
    names,
    trained,
)

Seen: TypeAlias = dict[Part, Mapping[str, Value]]


@dataclass
class Watched:
    """The things a loop trains with."""

    model: nn.Module
    optimizer: Optimizer
    scaler: GradScaler | None = None
    """Found when the loop scales its first loss, if it was not given."""
    scheduler: Any = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    """Those of the model, and what the optimizer trains beside them."""
    buffers: dict[str, Tensor] = field(default_factory=dict)
    name_of: dict[Tensor, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.look_again()

    def look_again(self) -> None:
        """What the model has now; once a step, since to walk through a model takes longer than to hash a small one."""
        ids = self.trained()
        for name, p in trained(self.model, self.optimizer).items():
            # From forward to backward FSDP puts whole parameters in the place of the shards that are trained. These,
            # which have a name, are then held by the optimizer alone.
            if name.startswith(OUTSIDE) and any(p is known for known in self.parameters.values()):
                continue
            if id(p) in ids or id(self.parameters.get(name)) not in ids:
                self.parameters[name] = p
        self.buffers = dict(self.model.named_buffers())
        self.name_of = names(self.parameters)

    def trained(self) -> set[int]:
        """The identities of what the optimizer trains, at this moment."""
        return {id(p) for group in self.optimizer.param_groups for p in group["params"]}

    def of_model(self) -> set[int]:
        """The identities of the model's parameters, at this moment."""
        return {id(p) for p in self.model.parameters()}


def unwrapped(thing: Any, attribute: str) -> Any:
    """What frameworks have wrapped: Accelerate, Fabric and Lightning keep the original under ``attribute``."""
    while (inner := getattr(thing, attribute, None)) is not None:
        thing = inner
    return thing


def at_forward(watched: Watched, roots: Iterable[Any], first: bool) -> Seen:
    """The losses that are differentiated, scaled or not; at the ``first`` of a step also what that starts from."""
    if first:
        watched.look_again()
    losses = [root.detach() for root in roots if isinstance(root, Tensor)]
    seen: Seen = {
        Part.LOSS: {"loss" if len(losses) == 1 else f"loss {i}": loss for i, loss in enumerate(losses)},
        Part.MODES: modes(watched.model, watched.parameters),
        Part.BUFFERS: buffers(watched),
        Part.RNG: generator_states(),
    }
    if first:
        seen |= {Part.PARAMETERS: watched.parameters, **of_scaler_and_scheduler(watched)}
    return seen


def at_accumulated(watched: Watched) -> Seen:
    """What a backward writes. Of the memory only what is shared, which is next to nothing."""
    shared = {name: value for name, value in aliases(watched.parameters, watched.buffers).items() if value != OWN}
    return {
        **gradients(watched),
        Part.ALIASING: shared,
        Part.MODES: modes(watched.model, watched.parameters),
        Part.BUFFERS: buffers(watched),
    }


def buffers(watched: Watched, extra_state: bool = False) -> dict[str, Value]:
    """The buffers, and what else of tensors the modules keep; their extra state only where asked for."""
    return {**watched.buffers, **extras(watched.model, extra_state=extra_state)}


def gradients(watched: Watched) -> Seen:
    """The gradients of all parameters; ``None`` where there is none."""
    return {Part.GRADIENTS: {name: p.grad for name, p in watched.parameters.items()}}


def at_ready(watched: Watched) -> Seen:
    """What the optimizer reads."""
    return {**gradients(watched), Part.OPTIMIZER: dict(groups(watched.name_of, watched.optimizer))}


def at_stepped(watched: Watched) -> Seen:
    """What the optimizer writes."""
    return {
        Part.PARAMETERS: watched.parameters,
        Part.OPTIMIZER: dict(moments(watched.name_of, watched.optimizer)),
    }


def at_end(watched: Watched) -> Seen:
    """All that goes on."""
    at_step = at_stepped(watched)
    all_of_it = {**at_step[Part.OPTIMIZER], **dict(groups(watched.name_of, watched.optimizer))}
    kept = buffers(watched, extra_state=True)
    return {**at_step, Part.OPTIMIZER: all_of_it, Part.BUFFERS: kept, **of_scaler_and_scheduler(watched)}


def of_scaler_and_scheduler(watched: Watched) -> Seen:
    """The state of both, where there are such."""
    seen: Seen = {}
    if watched.scaler is not None and watched.scaler.is_enabled():
        seen[Part.SCALER] = dict(flat("", watched.scaler.state_dict()))
    if watched.scheduler is not None:
        seen[Part.SCHEDULER] = dict(flat("", watched.scheduler.state_dict()))
    return seen
