"""The optimizer of PyTorch whose updates are those that a loop makes itself, found from weights and gradients.

For each rule with typical numbers, and with those in the loop's code, the directions of all updates are computed. Their
lengths are the learning rates, by least squares. The rule that fits best is then run by PyTorch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from gradparity.check.updates_and_averages.update_rules import Rule, directions, rules
from gradparity.parity.likely_cause import listed

CLOSE = 1e-3
"""Relative error of an update that is rounding: an update is the small difference of two weights."""
_SNAP = 3e-3
"""Relative error of a number from a fit."""
_FEW, _LIKELY = 3, 8
"""Updates that all rules are compared with, and rules that are compared with all of them."""
_WRITTEN = tuple(float(f"{digit}e{power}") for power in range(-6, 1) for digit in (1, 2, 2.5, 3, 4, 5, 6, 7, 8, 9))
"""Numbers that people write."""


@dataclass(frozen=True)
class Move:
    """One change of the weights, as a loop made it."""

    before: Sequence[Tensor]
    """Each parameter, in their order."""
    after: Sequence[Tensor]
    gradients: Sequence[Tensor | None]


@dataclass(frozen=True)
class Fitted:
    """A rule with its numbers, compared with the updates of a loop."""

    rule: Rule
    rates: tuple[float, ...]
    """The learning rate of each update."""
    decay: float
    """The weight decay."""
    only_matrices: bool
    """True if only parameters of two or more dimensions are decayed."""
    errors: tuple[float, ...] = ()
    """The relative error of each update from the one that the rule makes of the same weights and gradients."""
    bits: bool = False
    """True if PyTorch's optimizer writes the same bits in all updates."""
    worst: tuple[int, ...] = ()
    """For each update the number of the parameter that is furthest from the rule's."""

    @property
    def alike(self) -> int:
        """Return the number of updates until one that differs by more than rounding."""
        return next((i for i, error in enumerate(self.errors) if not error <= CLOSE), len(self.errors))

    def __str__(self) -> str:
        """Return the call that builds it, and in words what is not in the call."""
        steady = len(set(self.rates)) == 1
        numbers: dict[str, object] = {"lr": self.rates[0]} if steady else {}
        numbers |= {key: value for key, value in self.rule.settings.items() if value}
        numbers |= {"weight_decay": self.decay} if self.decay else {}
        kind = self.rule.kind if self.decay else self.rule.kind.removesuffix("W")  # the same without a decay
        written = ", ".join(f"{key}={value}" for key, value in numbers.items())
        more = [*self.rule.apart]
        more += [] if steady else ["a learning rate that changes"]
        more += [f"gradients clipped to {self.rule.clip:g}"] if self.rule.clip else []
        more += ["weight decay for matrices only"] if self.decay and self.only_matrices else []
        return f"torch.optim.{kind}({written})" + (f" with {listed(more)}" if more else "")


def fit(moves: Sequence[Move], numbers: Sequence[float], thresholds: Sequence[float]) -> Fitted | None:
    """Return the optimizer that makes all updates, or as many of the first as any; ``None`` without gradients.

    Args:
        moves: the updates, in order.
        numbers: those in the loop's code, which may be its hyperparameters.
        thresholds: norms to which it may clip.
    """
    if not moves or not any(g is not None for move in moves for g in move.gradients):
        return None
    updates = {clip: _Updates.of(moves, clip) for clip in (None, *thresholds)}
    best: Fitted | None = None
    for some in rules(numbers, thresholds):  # the likely ones first
        likely = sorted(some, key=lambda rule: _badness(_fitted(rule, updates[rule.clip].first(_FEW), numbers)))
        found = min((_fitted(rule, updates[rule.clip], numbers) for rule in likely[:_LIKELY]), key=_badness)
        best = found if best is None else min((best, found), key=_badness)
        if best.alike == len(moves):
            break
    assert best is not None
    return best if best.rule.apart or not best.alike else _run(best, moves)


@dataclass(frozen=True)
class _Updates:
    """All updates, each with its values as one vector in float64."""

    before: Sequence[Tensor]
    changes: Sequence[Tensor]
    gradients: Sequence[Tensor]
    there: Sequence[Tensor]
    """One for a weight of a parameter that has a gradient, else zero."""
    matrix: Tensor
    """One for a weight of a parameter of two or more dimensions, else zero."""

    def first(self, number: int) -> "_Updates":
        """Return the first updates."""
        before, changes, gradients, there = (
            part[:number] for part in (self.before, self.changes, self.gradients, self.there)
        )
        return _Updates(before, changes, gradients, there, self.matrix)

    @staticmethod
    def of(moves: Sequence[Move], clip: float | None) -> "_Updates":
        """Return the updates, with clipped gradients."""
        clipped = [_gradients(move, clip) for move in moves]
        pairs = [list(zip(some, move.before, strict=True)) for some, move in zip(clipped, moves, strict=True)]
        before = [_flat(move.before) for move in moves]
        return _Updates(
            before,
            [_flat(move.after) - old for move, old in zip(moves, before, strict=True)],
            [_flat([torch.zeros_like(p) if g is None else g for g, p in some]) for some in pairs],
            [_flat([torch.full_like(p, g is not None) for g, p in some]) for some in pairs],
            _flat([torch.full_like(p, p.ndim > 1) for p in moves[0].before]),
        )


def _badness(one: Fitted) -> tuple[int, float]:
    return -one.alike, sum(one.errors)


def _fitted(rule: Rule, updates: _Updates, numbers: Sequence[float]) -> Fitted:
    """Return the rule with the learning rates and the decay that fit best."""
    ways = directions(rule, updates.before, updates.gradients, updates.there)
    tried = [_decaying(rule, ways, updates, numbers, torch.zeros_like(updates.matrix), only_matrices=False)]
    if rule.decays:
        tried.append(_decaying(rule, ways, updates, numbers, torch.ones_like(updates.matrix), only_matrices=False))
        tried.append(_decaying(rule, ways, updates, numbers, updates.matrix, only_matrices=True))
    return min(tried, key=_badness)  # of equal ones the first, which has no decay


def _decaying(
    rule: Rule,
    ways: Sequence[Tensor],
    updates: _Updates,
    numbers: Sequence[float],
    decayed: Tensor,
    only_matrices: bool,
) -> Fitted:
    """Return the rule with the learning rates and the decay of the ``decayed`` weights that fit best."""
    olds = [old * there * decayed for old, there in zip(updates.before, updates.there, strict=True)]
    solved = [_solve(*one) for one in zip(updates.changes, ways, olds, strict=True)]
    decay = median(share for _, share in solved)
    decay = 0.0 if abs(decay) < 1e-6 else _nearest(decay, numbers, 0.1)
    rates = _as_written([rate for rate, _ in solved], numbers)
    errors = tuple(
        _error(change, -rate * (way + decay * old), whole)
        for rate, change, way, old, whole in zip(rates, updates.changes, ways, olds, updates.before, strict=True)
    )
    if min(rates) < 0 or decay < 0:  # as no optimizer has them
        errors = (math.inf,) * len(rates)
    return Fitted(rule, rates, decay or rule.coupled, only_matrices, errors)


def _solve(change: Tensor, way: Tensor, old: Tensor) -> tuple[float, float]:
    """Return the learning rate and the decoupled weight decay of one update, by least squares."""
    aa = float(way @ way)
    if not (cc := float(old @ old)):
        return -float(way @ change) / aa if aa else 0.0, 0.0
    ac, ab, cb = float(way @ old), float(way @ change), float(old @ change)
    determinant = aa * cc - ac * ac
    if not math.isfinite(determinant) or determinant <= 1e-12 * aa * cc:
        return -ab / aa if aa else 0.0, 0.0
    rate, product = -(ab * cc - cb * ac) / determinant, -(cb * aa - ab * ac) / determinant
    return rate, product / rate if rate else 0.0


def _as_written(rates: Sequence[float], numbers: Sequence[float]) -> tuple[float, ...]:
    """Return the learning rates as a programmer has written them: one number, if they are the same."""
    middle = median(rates)
    if middle and all(abs(rate / middle - 1) < _SNAP for rate in rates):
        return (_nearest(middle, numbers, _SNAP),) * len(rates)
    return tuple(_nearest(rate, numbers, _SNAP, ()) for rate in rates)


def _nearest(number: float, numbers: Sequence[float], within: float, written: Sequence[float] = _WRITTEN) -> float:
    """Return the nearest number in the code, or else that people write; the number itself if none is near."""
    for some in (numbers, written):
        near = min(some, key=lambda one: abs(one - number), default=math.inf)
        if abs(near - number) <= within * abs(number):
            return near
    return number


def _error(change: Tensor, expected: Tensor, old: Tensor, eps: float = 2.0**-23) -> float:
    """Return the relative error of an update beyond the rounding of the weights."""
    beyond = float((change - expected).norm()) - 2 * eps * float(old.norm())
    size = float(change.norm())
    return max(0.0, beyond) / size if size else float(beyond > 0)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


def _gradients(move: Move, clip: float | None) -> list[Tensor | None]:
    """Return the gradients of an update, clipped."""
    parameters = [nn.Parameter(torch.empty_like(p)) for p in move.before]
    for p, gradient in zip(parameters, move.gradients, strict=True):
        p.grad = None if gradient is None else gradient.clone()
    if clip is not None:
        nn.utils.clip_grad_norm_(parameters, clip)
    return [p.grad for p in parameters]


def _run(fitted: Fitted, moves: Sequence[Move]) -> Fitted:
    """Compare the updates with those that PyTorch's optimizer makes of the same weights and gradients."""
    parameters = [nn.Parameter(p.clone()) for p in moves[0].before]
    decayed = [p for p in parameters if p.ndim > 1 or not fitted.only_matrices]
    others = [p for p in parameters if not (p.ndim > 1 or not fitted.only_matrices)]
    groups = [{"params": decayed, "weight_decay": fitted.decay}, {"params": others, "weight_decay": 0.0}]
    build: Callable[..., torch.optim.Optimizer] = getattr(torch.optim, fitted.rule.kind)
    optimizer = build([group for group in groups if group["params"]], lr=fitted.rates[0], **fitted.rule.settings)
    errors, worst, bits = [], [], True
    for move, rate in zip(moves, fitted.rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.no_grad():
            for p, old in zip(parameters, move.before, strict=True):
                p.copy_(old)
        for p, gradient in zip(parameters, _gradients(move, fitted.rule.clip), strict=True):
            p.grad = gradient
        optimizer.step()
        apart = [
            _error(_flat([new]) - _flat([old]), _flat([p.detach()]) - _flat([old]), _flat([old]))
            for p, old, new in zip(parameters, move.before, move.after, strict=True)
        ]
        bits = bits and all(torch.equal(p.detach(), new) for p, new in zip(parameters, move.after, strict=True))
        worst.append(max(range(len(apart)), key=apart.__getitem__))
        errors.append(max(apart))
    return Fitted(fitted.rule, fitted.rates, fitted.decay, fitted.only_matrices, tuple(errors), bits, tuple(worst))
