"""Batches in an order of the loop's own, random numbers that it draws besides, and the reference with the same ones.

A loop that shuffles is right, and so is one that draws a seed. Its dropout masks are then different ones. So the state
of torch's generator before each forward is noted, and the reference is given the same states. This is not done for a
loop that repeats a state, whose masks repeat too, nor for one that resumes and does not restore its state.
"""

import base64
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradparity.faults import Change
from gradparity.faults.stress_scenario import build
from gradparity.parity.batch import Batch


@dataclass(frozen=True)
class OwnDraws:
    """The order of the batches and the random states of a loop, where they are not the reference's."""

    orders: tuple[tuple[int, ...], ...] = ()
    """For each epoch, the indices of its batches; empty if they come as they are given."""
    states: tuple[bytes, ...] = ()
    """The state of torch's generator before each forward; empty if nothing but the model draws."""


@dataclass
class DrawsWatcher:
    """Hooks that note the batch and the random state of each forward in a training."""

    model: nn.Module
    batches: Sequence[Batch]
    unrestored: bool = False
    """True once the loop has resumed with the seed of a new process instead of its own."""
    _seeds: tuple[int, int] | None = None
    """The seed before a restart and after it, until the next forward."""
    _indices: list[int | None] = field(default_factory=list)
    _before: list[bytes] = field(default_factory=list)
    _after: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._after.append(_state())
        self.model.register_forward_pre_hook(self._begins)
        self.model.register_forward_hook(self._ends)

    def restarting(self, restart: Callable[[], object]) -> Callable[[], object]:
        """Return a function that calls ``restart`` and notes the seeds."""

        def noting() -> object:
            before = torch.initial_seed()
            result = restart()
            self._seeds = before, torch.initial_seed()
            return result

        return noting

    def own(self) -> OwnDraws:
        """Return what the loop draws itself, once it is over."""
        elsewhere = self._before != self._after[: len(self._before)]
        distinct = len(set(self._before)) == len(self._before) and all(self._before)
        return OwnDraws(self._orders(), tuple(self._before) if elsewhere and distinct and not self.unrestored else ())

    def batches_in_a_row(self) -> int:
        """Return the number of batches that the loop takes, one after the other; a batch taken again counts once."""
        return sum(
            one is None or one != before for before, one in zip([None, *self._indices], self._indices, strict=False)
        )

    def never_taken(self) -> tuple[int, ...]:
        """Return the indices of the batches that the loop never trains on; none if it makes batches of its own."""
        known = bool(self._indices) and None not in self._indices
        return tuple(index for index in range(len(self.batches)) if known and index not in self._indices)

    def _orders(self) -> tuple[tuple[int, ...], ...]:
        each, natural = len(self.batches), list(range(len(self.batches)))
        known = [index for index in self._indices if index is not None]
        epochs = [known[start : start + each] for start in range(0, len(known), each)]
        whole = len(known) == len(self._indices) and all(sorted(epoch) == natural for epoch in epochs)
        return tuple(map(tuple, epochs)) if whole and any(epoch != natural for epoch in epochs) else ()

    def _begins(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module is self.model and module.training and torch.is_grad_enabled():
            same = (i for i, batch in enumerate(self.batches) if _equal(batch.inputs, inputs[0] if inputs else None))
            self._indices.append(next(same, None))
            if self._seeds is not None:
                (before, anew), self._seeds = self._seeds, None
                self.unrestored |= torch.initial_seed() == anew != before
            self._before.append(_state())

    def _ends(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if len(self._after) == len(self._before):
            self._after.append(_state())


def _equal(tensor: Tensor, other: object) -> bool:
    with suppress(RuntimeError):
        return isinstance(other, Tensor) and torch.equal(tensor, other)
    return False


def _state() -> bytes:
    """Return the state of torch's generator; nothing in a transform of torch.func, where no tensor can be read."""
    with suppress(RuntimeError):
        return torch.get_rng_state().numpy().tobytes()
    return b""


class InOrders:
    """The same batches in each epoch, in the order that is due."""

    def __init__(self, batches: Sequence[Batch], orders: Sequence[Sequence[int]]) -> None:
        self.batches, self.orders = batches, iter(orders)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the next epoch."""
        return (self.batches[index] for index in next(self.orders))


def draw_from(model: nn.Module, states: str) -> None:
    """Let each forward of ``model`` in a training draw from the next of the ``states``, written by :func:`_written`."""
    whole = zlib.decompress(base64.b85decode(states))
    each = len(_state())
    left = iter([whole[start : start + each] for start in range(0, len(whole), each)])

    def restore(module: nn.Module, _: tuple[Any, ...]) -> None:
        if module.training and torch.is_grad_enabled() and (state := next(left, None)) is not None:
            torch.set_rng_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))

    model.register_forward_pre_hook(restore)


def _written(states: Sequence[bytes]) -> str:
    return base64.b85encode(zlib.compress(b"".join(states))).decode()


def with_own_order(draws: OwnDraws) -> Change:
    """Return the change that makes the reference take its batches in such an order."""
    return Change(
        "own-order",
        {
            build: f"""
-    return Cast(model, optimizer, microbatches(MICROBATCHES, seed=0), summed_loss, scaler, scheduler, plan)
+    from gradparity.check.intended.own_draws import InOrders
+    made = InOrders(microbatches(MICROBATCHES, seed=0), {draws.orders!r})
+    return Cast(model, optimizer, made, summed_loss, scaler, scheduler, plan)
""",
        },
    )


def with_own_draws(draws: OwnDraws) -> Change:
    """Return the change that makes the reference draw from such states."""
    return Change(
        "own-draws",
        {
            build: f"""
     autocast = partial(PRECISIONS[precision].autocast, "cpu")
+    from gradparity.check.intended.own_draws import draw_from
+    draw_from(model, {_written(draws.states)!r})
""",
        },
    )
