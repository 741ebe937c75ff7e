"""Watchers of the gradient scaler's functions."""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from gradparity.auditing.events import StepMade, Unscale, Update
from gradparity.auditing.watching.found_optimizers import Registry
from gradparity.auditing.watching.later import later
from gradparity.auditing.watching.loss_weights import SCALED
from gradparity.auditing.watching.user_lines import here
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer, rates
from gradparity.trace.harmless_hooks import Call, Watching
from gradparity.trace.snapshot import unwrapped


class ScalerWatchers:
    """The watchers of scalers.

    Args:
        known: the optimizers and what happens to them.
        stepped: called after each step that a scaler has skipped.
    """

    def __init__(self, known: Registry, stepped: Callable[[WatchedOptimizer], None]) -> None:
        self.known = known
        self.running: GradScaler | None = None
        """The scaler whose ``step`` runs."""
        self._stepped = stepped

    def places(self) -> Iterator[tuple[Any, str, Callable[[Call], Watching]]]:
        """Yield each watched function: its owner, its name, and its watcher."""
        yield GradScaler, "__init__", self._scaler_built
        yield GradScaler, "scale", self._scale
        yield GradScaler, "unscale_", self._unscale
        yield GradScaler, "step", self._scaler_step
        yield GradScaler, "update", self._update

    def _scaler_built(self, call: Call) -> Watching:
        yield
        self.known.number_of_scaler(call.args[0])

    def _scale(self, call: Call) -> Watching:
        result = yield
        scaler: GradScaler = call.args[0]
        self.known.number_of_scaler(scaler)
        if scaler.is_enabled():
            for tensor in result if isinstance(result, (list, tuple)) else [result]:
                if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                    metadata: Any = tensor.grad_fn.metadata
                    metadata[SCALED] = scale_of(scaler)

    def _optimizer_of(self, call: Call) -> WatchedOptimizer | None:
        """Return the optimizer that an enabled scaler is called with; ``None`` if it is disabled."""
        optimizer = unwrapped(call.get(1, "optimizer"), "optimizer")
        if not call.args[0].is_enabled() or not isinstance(optimizer, Optimizer):
            return None
        trainee = self.known.trainee(optimizer)
        self.known.settle(trainee)
        return trainee

    def _unscale(self, call: Call) -> Watching:
        scaler: GradScaler = call.args[0]
        trainee = self._optimizer_of(call)
        if trainee is None:
            yield
            return
        before = trainee.gradients()
        yield
        self.known.tell(trainee, Unscale(scale_of(scaler)), before, trainee.gradients(), here())

    def _scaler_step(self, call: Call) -> Watching:
        scaler: GradScaler = call.args[0]
        trainee = self._optimizer_of(call)
        if trainee is None:
            yield
            return
        made = trainee.story.steps
        before, weights, scale = trainee.gradients(), trainee.weights(), scale_of(scaler)
        state = trainee.state()
        self.running = scaler
        try:
            yield
        finally:
            self.running = None
        if trainee.story.steps == made:
            number = self.known.number_of_scaler(scaler)
            what = StepMade(
                True,
                number,
                scale,
                weights,
                trainee.weights(),
                rates(trainee.optimizer()),
                state_before=state,
                state_after=trainee.state(),
                tracker=tracker_of(scaler),
            )
            self.known.tell(trainee, what, before, trainee.gradients(), here())
            self._stepped(trainee)

    def _update(self, call: Call) -> Watching:
        scaler: GradScaler = call.args[0]
        enabled = scaler.is_enabled()
        before = scale_of(scaler) if enabled else 1.0
        yield
        if not enabled:
            return
        number, line = self.known.number_of_scaler(scaler), here()
        what = Update(number, before, scale_of(scaler), tracker_of(scaler))
        for trainee in self.known.alive():
            if trainee.story.steps:
                self.known.tell(trainee, what, (), (), line)


def scale_of(scaler: GradScaler) -> Any:
    """Return the scale of an enabled scaler; its ``get_scale`` would wait for a GPU."""
    return later(float, scaler._scale if isinstance(scaler._scale, Tensor) else scaler.get_scale())


def tracker_of(scaler: GradScaler) -> Any:
    """Return the number of steps since the last overflow or growth of an enabled scaler."""
    return later(
        int, scaler._growth_tracker if isinstance(scaler._growth_tracker, Tensor) else scaler._get_growth_tracker()
    )
