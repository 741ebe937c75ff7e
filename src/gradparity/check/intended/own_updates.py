"""Updates that no optimizer of PyTorch makes, such as those of an own class, and the reference that takes them over.

The weights before each forward are noted, and the reference is given the same ones in place of its own steps. So all
that comes before an update is judged, which are losses and gradients. The update itself is not.
"""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradparity.check.intended.own_optimizers import training_with
from gradparity.check.running.observe import all_weights
from gradparity.check.running.users_stack import numbers_in, users_frames
from gradparity.faults import Change

_ENOUGH = 2
"""Changes of the weights that are a training: one may be an initialization, or weights that are loaded."""


@dataclass(frozen=True)
class OwnUpdates:
    """The weights of a loop that updates them in a way of its own."""

    weights: bytes = b""
    """All parameters in their order, before each forward and at the end; empty if they never change."""
    by: tuple[str, ...] = ()
    """The classes of the optimizers that make the updates; empty if the loop writes them out."""
    number: int = 0
    """The number of updates."""
    dtype: torch.dtype = torch.float32
    numbers: tuple[float, ...] = ()
    """Numbers in the loop's code and variables, which may be hyperparameters."""

    def vectors(self, size: int) -> list[Tensor]:
        """Return the weights as vectors of a size; none if it is not theirs."""
        numbers = torch.frombuffer(bytearray(self.weights), dtype=self.dtype)
        return [] if not size or len(numbers) % size else list(numbers.split(size))


@dataclass
class WeightsWatcher:
    """A hook that notes the weights before each forward in a training."""

    model: nn.Module
    seen: list[Tensor | None] = field(default_factory=list)
    """All parameters as one vector, at first and before each forward."""
    numbers: dict[float, None] = field(default_factory=dict)
    """Numbers in the user's functions, in the order in which they were found."""

    def __post_init__(self) -> None:
        self._look()
        self.model.register_forward_pre_hook(self._begins)

    def _begins(self, module: nn.Module, _: tuple[Any, ...]) -> None:
        if module is self.model and module.training and torch.is_grad_enabled():
            self._look()
            for frame in users_frames():
                self.numbers |= dict.fromkeys(numbers_in(frame))

    def _look(self) -> None:
        self.seen.append(all_weights(self.model))

    def own(self, by: tuple[str, ...]) -> OwnUpdates:
        """Return the weights before each forward and at the end, once the loop is over; none if they hardly change."""
        self._look()
        first, *weights = found = [one for one in self.seen if one is not None]
        alike = len(found) == len(self.seen) and len({(one.dtype, one.shape) for one in found}) == 1
        moved = alike and sum(not torch.equal(*pair) for pair in pairwise(weights)) >= _ENOUGH
        if not moved:
            return OwnUpdates()
        number = sum(not torch.equal(one, other) for one, other in pairwise(found))
        return OwnUpdates(torch.cat(weights).numpy().tobytes(), by, number, first.dtype, tuple(self.numbers))


class TakenOver(Optimizer):
    """An optimizer whose steps set the weights that a loop had."""

    def __init__(self, model: nn.Module, weights: Sequence[Tensor]) -> None:
        super().__init__(model.parameters(), {})
        self._model, self._weights, self._forwards = model, weights, 0
        model.register_forward_pre_hook(self._begins)

    def _begins(self, module: nn.Module, _: tuple[Any, ...]) -> None:
        if module.training and torch.is_grad_enabled():
            self.step()  # the loop may have made one where this one was skipped
            self._forwards += 1

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Set the weights that the loop had before its next forward."""
        parameters = list(self._model.parameters())
        if self._forwards < len(self._weights):
            parts = self._weights[self._forwards].split([p.numel() for p in parameters])
            for p, part in zip(parameters, parts, strict=True):
                p.copy_(part.view_as(p))


def read_weights(model: nn.Module, written: str) -> TakenOver:
    """Return what takes over the weights of a loop, from the text that :func:`with_own_updates` has made of them."""
    dtype = next(model.parameters()).dtype
    numbers = torch.frombuffer(bytearray(zlib.decompress(base64.b85decode(written))), dtype=dtype)
    return TakenOver(model, numbers.split(sum(p.numel() for p in model.parameters())))


def with_own_updates(updates: OwnUpdates) -> Change:
    """Return the change that makes the reference make such updates in place of its steps."""
    written = base64.b85encode(zlib.compress(updates.weights)).decode()
    imports = "from gradparity.check.intended.own_updates import read_weights"
    return training_with("own-updates", f"[read_weights(model, {written!r})]", imports)
