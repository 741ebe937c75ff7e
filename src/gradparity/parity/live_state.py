"""The live values of a run at each phase, by part and name; none is copied."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from gradparity.parity.aliasing import KnownApart
from gradparity.parity.model_tree import ModelTree
from gradparity.parity.optimizer_names import OptimizerNames
from gradparity.parity.other_model_state import extras, modes_of_modules, modes_of_parameters
from gradparity.parity.state import (
    COMPARED,
    HasState,
    Part,
    Value,
    aliases,
    flatten,
    groups_with,
    members,
    name_by_tensor,
    with_outsiders,
)
from gradparity.training import Moment, Phase, Run


class LiveState:
    """The values of one run, read anew at each phase; names are computed anew only after a change.

    Args:
        run: the run.
        rng: the states of the run's random stream, by device type; the stream keeps them up to date.
        extra_state: other objects of the run, by name.
    """

    def __init__(self, run: Run, rng: Mapping[str, Tensor], extra_state: Mapping[str, HasState]) -> None:
        self.run, self.rng, self.extra_state = run, rng, extra_state
        self._tree = ModelTree(run.model)
        self._optimizer_names = OptimizerNames(run.optimizer)
        self._of_model: Mapping[str, Tensor] = {}
        """The parameters of the model when ``_parameters``, ``_name_of`` and ``_members`` were computed."""
        self._parameters: dict[str, Tensor] = {}
        self._name_of: dict[Tensor, str] = {}
        self._members: list[tuple[str, ...]] = []
        self._memory = KnownApart()
        self._there: list[bool] = []
        """For each parameter, whether it had a gradient when ``_sharing`` and ``_flags`` were computed."""
        self._named: Mapping[str, Tensor] = {}
        """The parameters for which they were computed."""
        self._sharing: Mapping[str, Value] = {}
        """The result of :func:`aliases` for these parameters, their gradients and the buffers."""
        self._flags: Mapping[str, Value] = {}
        """The flags of these parameters and gradients."""

    def at(self, moment: Moment) -> dict[Part, Mapping[str, Value]]:
        """Return the values to compare when the run has stopped at ``moment``; ``None`` for a missing gradient."""
        self._look_again()
        run, tree, parts = self.run, self._tree, COMPARED[moment.phase]
        gradients = {name: p.grad for name, p in self._parameters.items()} if Part.GRADIENTS in parts else {}
        if Part.ALIASING in parts:
            self._look_at_memory(list(gradients.values()))
        # Extra state may be costly to compute, so it is read once a step.
        at_rest = moment.phase == Phase.STEPPED
        values: dict[Part, Callable[[], Mapping[str, Value]]] = {
            Part.LOSS: lambda: {"loss": moment.loss},
            Part.GRADIENTS: lambda: gradients,
            Part.ALIASING: lambda: self._sharing,
            Part.MODES: lambda: {**modes_of_modules(tree), **self._flags},
            Part.PARAMETERS: lambda: self._parameters,
            Part.OPTIMIZER: self._optimizer_state,
            Part.SCALER: lambda: dict(flatten("", run.scaler.state_dict())),
            Part.SCHEDULER: lambda: dict(flatten("", run.scheduler.state_dict())),
            Part.BUFFERS: lambda: {**tree.buffers, **extras(tree, extra_state=at_rest)},
            Part.RNG: lambda: self.rng,
            Part.EXTRA: lambda: dict(flatten("", {k: thing.state_dict() for k, thing in self.extra_state.items()})),
        }
        return {part: values[part]() for part in parts}

    def _optimizer_state(self) -> dict[str, Value]:
        state = self._optimizer_names.moments(self._name_of)
        state.update(groups_with(self._members, self.run.optimizer))
        return state

    def _look_at_memory(self, gradients: Sequence[Tensor | None]) -> None:
        """Compute anew which tensors share memory, and their flags, unless forms and addresses show that both stay.

        Naming each gradient takes longer than finding that no two tensors overlap.
        """
        there = [gradient is not None for gradient in gradients]
        tensors = [*self._parameters.values(), *self._tree.buffers.values()]
        tensors += [gradient for gradient in gradients if gradient is not None]
        # A new buffer comes with new names too.
        if self._memory.are_still(tensors) and there == self._there and self._named is self._parameters:
            return
        self._there, self._named = there, self._parameters
        self._sharing = aliases(self._parameters, self._tree.buffers)
        self._flags = modes_of_parameters(self._parameters)

    def _look_again(self) -> None:
        """Compute the names of the parameters anew if the model or the groups of the optimizer have changed."""
        self._tree.look_again()
        others = self._optimizer_names.has_other_members()
        if others or self._tree.parameters is not self._of_model:
            self._of_model = self._tree.parameters
            self._parameters = with_outsiders(self._of_model, self.run.optimizer)
            self._name_of = name_by_tensor(self._parameters)
            self._members = members(self._name_of, self.run.optimizer)
