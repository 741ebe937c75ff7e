"""One optimizer as it is watched: looks at its gradients, weights and state, and what is not over yet."""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import xxhash
from torch import Tensor
from torch.optim import Optimizer

from gradparity.auditing.events import GradientLook, Story, Written
from gradparity.auditing.lines import Line
from gradparity.trace.fingerprint import fingerprint


class WatchedOptimizer:
    """One optimizer as it is watched: its story, and what is not over yet."""

    def __init__(self, optimizer: Optimizer, number: int, made: Line) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.story = Story(number, type(optimizer).__name__, made)
        self.weights_before = self.state_before = ""
        self.expected: dict[int, tuple[str, str] | None] = {}
        """For gradients of ``autograd.grad``: by position, the digest of the sum, and of the new gradient alone."""
        self.awaited: int | None = None
        """The position of the event whose gradients the loop has not written yet."""

    def parameters(self) -> list[Tensor]:
        """Return its parameters, in the order of its groups."""
        optimizer = self.optimizer()
        return [] if optimizer is None else [p for group in optimizer.param_groups for p in group["params"]]

    def gradients(self) -> GradientLook:
        """Return a look at its gradients."""
        return tuple(None if p.grad is None else fingerprint(p.grad) for p in self.parameters())

    def state(self) -> str:
        """Return a digest of the optimizer's own state."""
        optimizer, digest = self.optimizer(), xxhash.xxh3_128()
        for p in self.parameters():
            for name, value in (optimizer.state.get(p, {}) if optimizer is not None else {}).items():
                content = fingerprint(value).digest if isinstance(value, Tensor) else repr(value)
                digest.update(f"{name}{content}".encode())
        return digest.hexdigest()

    def shared(self) -> int:
        """Return the number of gradients that share their memory with one before them."""
        gradients = [p.grad for p in self.parameters() if p.grad is not None and _is_plain(p.grad)]
        places = [g.untyped_storage()._cdata for g in gradients]
        return len(places) - len(set(places))

    def weights(self) -> str:
        """Return a digest of all parameters."""
        digest = xxhash.xxh3_128()
        for p in self.parameters():
            digest.update(fingerprint(p).digest.encode())
        return digest.hexdigest()


def rates(optimizer: Optimizer | None) -> tuple[float, ...]:
    """Return the learning rate of each group; none if the optimizer is gone."""
    groups = [] if optimizer is None else optimizer.param_groups
    return tuple(float(group["lr"]) for group in groups if "lr" in group)


def sums(parameters: Sequence[Tensor], inputs: Sequence[Any], result: Any) -> dict[int, tuple[str, str] | None]:
    """Return, by position, the digests that ``p.grad`` has once a gradient was added to it, or has replaced it.

    ``None`` stands for a parameter that has no gradient.
    """
    position = {id(p): index for index, p in enumerate(parameters)}
    found: dict[int, tuple[str, str] | None] = {}
    for p, g in zip(inputs, result, strict=False):
        index = position.get(id(p))
        if index is None or (g is not None and not _is_plain(g)):
            continue
        if g is None:
            found[index] = None
            continue
        alone = fingerprint(g).digest
        found[index] = (alone if p.grad is None else fingerprint(p.grad + g).digest), alone
    return found


def written(expected: Mapping[int, tuple[str, str] | None], now: GradientLook) -> Written:
    """Compare the gradients in ``p.grad`` with what was expected of the loop."""
    counts = {"overwritten": 0, "swapped": 0, "dropped": 0, "other": 0, "zeros": 0}
    each = {digests[1]: index for index, digests in expected.items() if digests is not None}
    for index, digests in expected.items():
        have = now[index] if index < len(now) else None
        if digests is None:
            counts["zeros"] += have is not None and have.norm == 0
            continue
        added, alone = digests
        if have is None:
            counts["dropped"] += 1
        elif have.digest == added:
            continue
        elif have.digest == alone:
            counts["overwritten"] += 1
        elif each.get(have.digest, index) != index:
            counts["swapped"] += 1
        else:
            counts["other"] += 1
    return Written(**counts)


def _is_plain(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.layout == torch.strided
