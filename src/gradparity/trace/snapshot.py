"""Values of a loop at each of its events: live values by part and name, to be read at once.

Each phase shows its inputs beside its outputs. The first forward of a step shows parameters and loss scale. The moment
when the optimizer is about to read shows the learning rates.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from gradparity.parity.model_tree import ModelTree
from gradparity.parity.optimizer_names import OptimizerNames
from gradparity.parity.random_stream import generator_states
from gradparity.parity.state import (
    OUTSIDE_MODEL,
    OWN,
    Part,
    Value,
    aliases,
    extras,
    flatten,
    groups,
    modes,
    name_by_tensor,
    with_outsiders,
)

Snapshot: TypeAlias = dict[Part, Mapping[str, Value]]


@dataclass
class TrainingObjects:
    """The objects that a loop trains with."""

    model: nn.Module
    optimizer: Optimizer
    scaler: GradScaler | None = None
    """Found when the loop scales its first loss, if it was not passed."""
    scheduler: Any = None
    parameters: dict[str, Tensor] = field(default_factory=dict)
    """The parameters of the model, and others that the optimizer trains."""
    name_of: dict[Tensor, str] = field(default_factory=dict)
    tree: ModelTree = field(init=False)
    """The modules of the model."""
    optimizer_names: OptimizerNames = field(init=False)
    _of_model: Mapping[str, Tensor] = field(default_factory=dict)
    """The parameters of the model for which the names were found."""

    def __post_init__(self) -> None:
        self.tree, self.optimizer_names = ModelTree(self.model), OptimizerNames(self.optimizer)
        self.look_again()

    def look_again(self) -> None:
        """Update parameters and names from the model.

        This is done once a step. Modules are looked for again at each event that shows their modes or buffers.
        """
        self.tree.look_again()
        if not self.optimizer_names.has_other_members() and self.tree.parameters is self._of_model:
            return
        self._of_model = self.tree.parameters
        ids = self.trained()
        for name, p in with_outsiders(self.tree.parameters, self.optimizer).items():
            # From forward to backward, FSDP replaces the trained shards in the model by whole parameters. The shards,
            # which already have a name, are then held only by the optimizer.
            if name.startswith(OUTSIDE_MODEL) and any(p is known for known in self.parameters.values()):
                continue
            if id(p) in ids or id(self.parameters.get(name)) not in ids:
                self.parameters[name] = p
        self.name_of = name_by_tensor(self.parameters)

    def trained(self) -> set[int]:
        """Return the ``id`` of each parameter that the optimizer trains now."""
        return {id(p) for group in self.optimizer.param_groups for p in group["params"]}

    def of_model(self) -> set[int]:
        """Return the ``id`` of each parameter that the model has now."""
        self.tree.look_again()
        return set(map(id, self.tree.parameters.values()))


def unwrapped(thing: Any, attribute: str) -> Any:
    """Return the original of a wrapper: Accelerate, Fabric and Lightning keep it under ``attribute``."""
    while (inner := getattr(thing, attribute, None)) is not None:
        thing = inner
    return thing


def at_forward(watched: TrainingObjects, roots: Iterable[Any], first: bool) -> Snapshot:
    """Return the losses that are differentiated, scaled or not, with modes, buffers and random states.

    At the ``first`` forward of a step, add the state that the step starts from: parameters, scaler and scheduler.
    """
    if first:
        watched.look_again()
    buffers = live_buffers(watched)
    losses = [root.detach() for root in roots if isinstance(root, Tensor)]
    seen: Snapshot = {
        Part.LOSS: {"loss" if len(losses) == 1 else f"loss {i}": loss for i, loss in enumerate(losses)},
        Part.MODES: modes(watched.tree, watched.parameters),
        Part.BUFFERS: buffers,
        Part.RNG: generator_states(),
    }
    if first:
        seen |= {Part.PARAMETERS: watched.parameters, **_of_scaler_and_scheduler(watched)}
    return seen


def at_accumulated(watched: TrainingObjects) -> Snapshot:
    """Return the values that a backward writes.

    For memory, return only the shared memory, of which there is hardly any.
    """
    buffers = live_buffers(watched)
    shared = {name: value for name, value in aliases(watched.parameters, watched.tree.buffers).items() if value != OWN}
    return {
        **live_gradients(watched),
        Part.ALIASING: shared,
        Part.MODES: modes(watched.tree, watched.parameters),
        Part.BUFFERS: buffers,
    }


def live_buffers(watched: TrainingObjects, extra_state: bool = False) -> dict[str, Value]:
    """Look for modules again, and return the buffers and other tensors that they keep; extra state only on request."""
    watched.tree.look_again()
    return {**watched.tree.buffers, **extras(watched.tree, extra_state=extra_state)}


def live_gradients(watched: TrainingObjects) -> Snapshot:
    """Return the gradients of all parameters; ``None`` for a parameter without one."""
    return {Part.GRADIENTS: {name: p.grad for name, p in watched.parameters.items()}}


def at_ready(watched: TrainingObjects) -> Snapshot:
    """Return the values that the optimizer reads."""
    return {**live_gradients(watched), Part.OPTIMIZER: dict(groups(watched.name_of, watched.optimizer))}


def at_stepped(watched: TrainingObjects) -> Snapshot:
    """Return the values that the optimizer writes."""
    return {
        Part.PARAMETERS: watched.parameters,
        Part.OPTIMIZER: watched.optimizer_names.moments(watched.name_of),
    }


def at_end(watched: TrainingObjects) -> Snapshot:
    """Return all values that later steps depend on."""
    at_step = at_stepped(watched)
    all_of_it = {**at_step[Part.OPTIMIZER], **dict(groups(watched.name_of, watched.optimizer))}
    kept = live_buffers(watched, extra_state=True)
    return {**at_step, Part.OPTIMIZER: all_of_it, Part.BUFFERS: kept, **_of_scaler_and_scheduler(watched)}


def _of_scaler_and_scheduler(watched: TrainingObjects) -> Snapshot:
    """Return the state of the scaler and the scheduler, if the loop has them."""
    seen: Snapshot = {}
    if watched.scaler is not None and watched.scaler.is_enabled():
        seen[Part.SCALER] = dict(flatten("", _state_of(watched.scaler)))
    if watched.scheduler is not None:
        seen[Part.SCHEDULER] = dict(flatten("", watched.scheduler.state_dict()))
    return seen


def _state_of(scaler: GradScaler) -> dict[str, Any]:
    """Return the state of a scaler; its numbers on a GPU as tensors, because ``state_dict`` would wait for them."""
    scale, tracker = scaler._scale, scaler._growth_tracker
    if type(scaler).state_dict is not GradScaler.state_dict or scale is None or tracker is None or scale.is_cpu:
        return scaler.state_dict()
    return {
        "scale": scale,
        "growth_factor": scaler.get_growth_factor(),
        "backoff_factor": scaler.get_backoff_factor(),
        "growth_interval": scaler.get_growth_interval(),
        "_growth_tracker": tracker,
    }
