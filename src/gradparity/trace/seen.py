"""What there is to see of a loop at each of its events: live values by part and name, to be read at once.

Each phase shows what went into it beside what came out: parameters and loss scale at the first forward of a step,
learning rates when the optimizer is about to read them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from gradparity.parity.state import OWN, Part, Value, aliases, flat, groups, moments

Seen: TypeAlias = dict[Part, dict[str, Value]]


@dataclass
class Watched:
    """The things a loop trains with."""

    model: nn.Module
    optimizer: Optimizer
    scaler: GradScaler | None = None
    """Found when the loop scales its first loss, if it was not given."""
    scheduler: Any = None


def unwrapped(thing: Any, attribute: str) -> Any:
    """What frameworks have wrapped: Accelerate, Fabric and Lightning keep the original under ``attribute``."""
    while (inner := getattr(thing, attribute, None)) is not None:
        thing = inner
    return thing


def at_forward(watched: Watched, roots: Iterable[Any], first: bool) -> Seen:
    """The losses that are differentiated, scaled or not; at the ``first`` of a step also what that starts from."""
    losses = [root.detach() for root in roots if isinstance(root, Tensor)]
    seen: Seen = {
        Part.LOSS: {"loss" if len(losses) == 1 else f"loss {i}": loss for i, loss in enumerate(losses)},
        Part.BUFFERS: dict(watched.model.named_buffers()),
        Part.RNG: {"cpu": torch.get_rng_state()},
    }
    if first:
        seen |= {Part.PARAMETERS: dict(watched.model.named_parameters()), **of_scaler_and_scheduler(watched)}
    return seen


def at_accumulated(watched: Watched) -> Seen:
    """What a backward writes. Of the memory only what is shared, which is next to nothing."""
    shared = {name: value for name, value in aliases(watched.model) if value != OWN}
    return {
        **gradients(watched),
        Part.ALIASING: shared,
        Part.BUFFERS: dict(watched.model.named_buffers()),
    }


def gradients(watched: Watched) -> Seen:
    """The gradients of all parameters; ``None`` where there is none."""
    return {Part.GRADIENTS: {name: p.grad for name, p in watched.model.named_parameters()}}


def at_ready(watched: Watched) -> Seen:
    """What the optimizer reads."""
    return {**gradients(watched), Part.OPTIMIZER: dict(groups(watched.model, watched.optimizer))}


def at_stepped(watched: Watched) -> Seen:
    """What the optimizer writes."""
    return {
        Part.PARAMETERS: dict(watched.model.named_parameters()),
        Part.OPTIMIZER: dict(moments(watched.model, watched.optimizer)),
    }


def at_end(watched: Watched) -> Seen:
    """All that goes on."""
    at_step = at_stepped(watched)
    at_step[Part.OPTIMIZER] |= dict(groups(watched.model, watched.optimizer))
    return {**at_step, Part.BUFFERS: dict(watched.model.named_buffers()), **of_scaler_and_scheduler(watched)}


def of_scaler_and_scheduler(watched: Watched) -> Seen:
    """The state of both, where there are such."""
    seen: Seen = {}
    if watched.scaler is not None and watched.scaler.is_enabled():
        seen[Part.SCALER] = dict(flat("", watched.scaler.state_dict()))
    if watched.scheduler is not None:
        seen[Part.SCHEDULER] = dict(flat("", watched.scheduler.state_dict()))
    return seen
