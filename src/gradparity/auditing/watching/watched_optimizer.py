"""One optimizer as it is watched: looks at its gradients, weights and state, and what is not over yet."""

import math
import weakref
from collections.abc import Mapping, Sequence
from itertools import chain
from threading import get_ident
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from gradparity.auditing.events import GradientLook, Written
from gradparity.auditing.facts import Story
from gradparity.auditing.gradient_looks import Look
from gradparity.auditing.watching.first_hashes import FirstHashes
from gradparity.auditing.watching.later import later
from gradparity.auditing.watching.user_lines import Line
from gradparity.trace.fingerprint import Fingerprint
from gradparity.trace.gradients_before import versions_of
from gradparity.trace.late_fingerprints import LateFingerprints
from gradparity.trace.late_hash import LateHash, late_hash_of_all


def is_torchs(optimizer: Optimizer) -> bool:
    """Return whether an optimizer is PyTorch's own: these do not write to gradients, and learn only in their step."""
    return type(optimizer).__module__.startswith("torch.optim.")


class WatchedOptimizer:
    """One optimizer as it is watched: its story, and what is not over yet."""

    def __init__(self, optimizer: Optimizer, number: int, made: Line) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.story = Story(number, type(optimizer).__name__, made, by_torch=is_torchs(optimizer))
        self.weights_before: str | LateHash = ""
        self.state_before: str | LateHash = ""
        self.gradients_before: GradientLook | None = None
        self.expected: dict[int, ExpectedGradient | None] = {}
        """For gradients of ``autograd.grad``: what ``p.grad`` holds once they are written, by position."""
        self.loaded = False
        """True if ``load_state_dict`` has written weights since the last step."""
        self.resumed = False
        """True if the optimizer's own ``load_state_dict`` was called since the last step."""
        self.used_in = get_ident()
        """The thread that has used it last."""
        self.awaited: int | None = None
        """The position of the event whose gradients the loop has not written yet."""
        self.untouched: list[object] = []
        """The marks of its gradients at that event."""
        self._default = _number(optimizer.defaults.get("lr")) if hasattr(optimizer, "defaults") else None
        """The rate that its later groups would take."""
        self._look: Look | None = None
        """The last look at its gradients."""
        self._versions: object = None
        self._state: str | LateHash = ""
        self.hashes, self._hashes_of_state = FirstHashes(), FirstHashes()

    def parameters(self) -> list[Tensor]:
        """Return its parameters, in the order of its groups."""
        optimizer = self.optimizer()
        return [] if optimizer is None else [p for group in optimizer.param_groups for p in group["params"]]

    def gradients(self) -> Look:
        """Return a look at its gradients."""
        parameters = self.parameters()
        self._look = Look([p.grad for p in parameters], self._look, self.hashes.of(parameters))
        return self._look

    def state(self) -> str | LateHash:
        """Return a digest of the optimizer's own state.

        The state is read again only if it holds other tensors, or one with another version counter. A loop that writes
        through ``.data`` is not seen; no loop is known to write to an optimizer's state in that way.
        """
        optimizer = self.optimizer()
        state = {} if optimizer is None else optimizer.state
        kept = [one for p in self.parameters() if isinstance(one := state.get(p), dict)]
        values = [*chain.from_iterable(map(dict.values, kept))]
        if any(isinstance(value, (list, tuple, dict)) for value in values):  # as L-BFGS keeps its directions
            values = tree_leaves(values)
        tensors = [value for value in values if isinstance(value, Tensor)]
        others = repr([value for value in values if not isinstance(value, Tensor)])
        written = versions_of(tensors)
        versions = list(map(list, kept)), others, written
        if written is None or versions != self._versions:
            self._versions, self._state = versions, late_hash_of_all(tensors, others, self._hashes_of_state.of(tensors))
        return self._state

    def unread_rate(self) -> float | None:
        """Return a rate that the loop set where no step of PyTorch's optimizers reads it; ``None`` without one."""
        optimizer = self.optimizer()
        if optimizer is None or not self.story.by_torch:
            return None
        default = _number(optimizer.defaults.get("lr"))
        if default != self._default:
            return default
        places = (
            vars(optimizer).get("lr"),
            *(one.get("learning_rate") for one in (vars(optimizer), *optimizer.param_groups)),
        )
        return next((x for place in places if (x := _number(place))), None)

    def shared(self) -> int:
        """Return the number of gradients that share their memory with one before them."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None and _is_plain(p.grad)]
        places = [g.untyped_storage()._cdata for g in gradients]
        return len(places) - len(set(places))

    def marks(self) -> list[object]:
        """Return what changes when the loop writes to a gradient: for each, which tensor it is and its version."""
        return [_mark(p.grad) for p in self.parameters()]

    def weights(self) -> str | LateHash:
        """Return a digest of all parameters."""
        parameters = self.parameters()
        return late_hash_of_all(parameters, by=self.hashes.of(parameters))


def _number(value: object) -> float | None:
    """Return a learning rate as a number; ``None`` if it is none."""
    return float(value) if isinstance(value, (int, float)) else None


def _mark(gradient: Tensor | None) -> object:
    if gradient is None:
        return None
    return object() if gradient.is_inference() else (id(gradient), gradient._version)


def rates(optimizer: Optimizer | None) -> Any:
    """Return the learning rate of each group; none if the optimizer is gone, or computes its rates in each step."""
    groups = [] if optimizer is None else optimizer.param_groups
    found = [group.get("lr") for group in groups]
    numbers = [x for x in found if isinstance(x, (int, float)) or (isinstance(x, Tensor) and x.numel() == 1)]
    return later(lambda *rates: tuple(map(float, rates)), *numbers)


class ExpectedGradient(NamedTuple):
    """The content of ``p.grad`` once a gradient was added to it, or has replaced it; a GPU may still compute it."""

    sum: LateFingerprints | None
    """Of the sum; ``None`` if there is nothing to add to."""
    new: LateFingerprints
    """Of all the new gradients."""
    position: int
    """The position of this one among them."""

    def added(self) -> Fingerprint:
        """Return the fingerprint of the sum, after a wait for it."""
        return self.alone() if self.sum is None else self.sum.get()[0]

    def alone(self) -> Fingerprint:
        """Return the fingerprint of the new gradient, after a wait for it."""
        return self.new.get()[self.position]

    def after_zero_grad(self) -> "ExpectedGradient":
        """Return what is expected once ``p.grad`` was emptied: there is nothing to add to."""
        return self._replace(sum=None)


def sums(parameters: Sequence[Tensor], inputs: Sequence[Any], result: Any) -> dict[int, ExpectedGradient | None]:
    """Return, by position, what ``p.grad`` holds once the loop has written these gradients.

    ``None`` stands for a parameter that has no gradient.
    """
    position = {id(p): index for index, p in enumerate(parameters)}
    found: dict[int, ExpectedGradient | None] = {}
    there: list[tuple[int, Tensor, LateFingerprints | None]] = []
    for p, g in zip(inputs, result, strict=False):
        index = position.get(id(p))
        if index is None or (g is not None and not _is_plain(g)):
            continue
        if g is None:
            found[index] = None
        else:  # the sum is hashed and gone before there is the next
            there.append((index, g, None if p.grad is None else LateFingerprints([p.grad + g])))
    new = LateFingerprints([g for _, g, _ in there])
    return found | {index: ExpectedGradient(sum_, new, i) for i, (index, _, sum_) in enumerate(there)}


def written(expected: Mapping[int, ExpectedGradient | None], now: Look) -> Any:
    """Return how the gradients of ``autograd.grad`` have arrived: :class:`~gradparity.auditing.events.Written`."""
    late = (one for each in expected.values() if each is not None for one in (each.sum, each.new))
    return later(lambda *_: _written(expected, now), now, *late)


def _written(expected: Mapping[int, ExpectedGradient | None], now: GradientLook) -> Written:
    """Compare the gradients in ``p.grad`` with what was expected of the loop.

    Gradients that are all multiplied by one factor, such as one over the number of tokens, are as expected.
    """
    counts = {"overwritten": 0, "swapped": 0, "dropped": 0, "other": 0, "zeros": 0}
    each = {one.alone().digest: index for index, one in expected.items() if one is not None}
    factors = []
    for index, one in expected.items():
        have = now[index] if index < len(now) else None
        if one is None:
            counts["zeros"] += have is not None and have.norm == 0
            continue
        if have is None:
            counts["dropped"] += 1
        elif have.digest == one.added().digest:
            continue
        elif have.digest == one.alone().digest:
            counts["overwritten"] += 1
        elif each.get(have.digest, index) != index:
            counts["swapped"] += 1
        else:
            counts["other"] += 1
            norm = one.added().norm
            factors.append(have.norm / norm if norm else math.nan)
    every = sum(one is not None for one in expected.values())
    if len(factors) == every > 1 and max(factors) - min(factors) <= 1e-3 * abs(max(factors)):
        counts["other"] = 0
    return Written(**counts)


def _is_plain(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.layout == torch.strided
