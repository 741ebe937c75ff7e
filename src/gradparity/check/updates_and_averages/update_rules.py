"""The rules by which optimizers update weights, and the directions of their updates in float64."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import torch
from torch import Tensor

_BETAS = ((0.9, 0.999), (0.9, 0.95), (0.9, 0.99), (0.9, 0.98), (0.95, 0.999), (0.5, 0.999), (0.8, 0.99))
_EPS, _MOMENTA = (1e-8, 1e-6), (0.9, 0.95, 0.99)
_DECAYS = (1e-4, 5e-4, 1e-3, 1e-2, 5e-2, 0.1)
_MOST = 6
"""Numbers of the loop's own that are tried in one place, at most."""

TOGETHER, UNCORRECTED, INSIDE = (
    "one count of steps for all parameters",
    "no bias correction",
    "eps inside the square root",
)
"""The ways in which a rule is not PyTorch's."""


@dataclass(frozen=True)
class Rule:
    """An optimizer of ``torch.optim``, but for its learning rates and decoupled weight decay."""

    kind: str
    settings: Mapping[str, object] = field(default_factory=dict)
    clip: float | None = None
    """The norm to which gradients are clipped first."""
    coupled: float = 0.0
    """The weight decay that is added to the gradients."""
    apart: tuple[str, ...] = ()
    """The ways in which it is not PyTorch's."""

    @property
    def betas(self) -> tuple[float, float]:
        """Return the two betas of Adam."""
        betas = self.settings["betas"]
        assert isinstance(betas, tuple)
        return betas

    @property
    def decays(self) -> bool:
        """Return whether its weight decay is decoupled from the gradients."""
        return self.kind == "AdamW"


def rules(numbers: Sequence[float], thresholds: Sequence[float]) -> Iterator[list[Rule]]:
    """Yield the rules that a loop may follow, the likely ones first.

    Args:
        numbers: those in the loop's code.
        thresholds: norms to which it may clip.
    """
    clips = [None, *thresholds]
    large = [number for number in numbers if 0.3 < number < 1][:_MOST]
    small = [number for number in numbers if number < 1e-3][: _MOST // 2]
    decays = [number for number in numbers if number <= 0.2][:_MOST]
    betas = dict.fromkeys([*product(large, large), *product([0.9, *large], [0.999, *large]), *_BETAS])
    yield [Rule("SGD", {}, clip) for clip in clips]
    adams = [
        Rule("AdamW", {"betas": pair, "eps": eps}, clip)
        for eps, pair, clip in product(dict.fromkeys([*small, *_EPS]), betas, clips)
    ]
    yield adams
    ways = (TOGETHER,), (UNCORRECTED,), (INSIDE,), (TOGETHER, INSIDE)
    yield [replace(rule, apart=apart) for apart in ways for rule in adams]
    momenta = [0.0, *dict.fromkeys([*large, *_MOMENTA])]
    yield [
        Rule("SGD", {"momentum": momentum, "nesterov": nesterov}, clip, decay)
        for momentum, nesterov, clip, decay in product(momenta, (False, True), clips, [0.0, *decays, *_DECAYS])
        if momentum or not nesterov
    ]
    yield [replace(rule, settings={**rule.settings, "amsgrad": True}) for rule in adams]
    typical = [rule for rule in adams if rule.settings["eps"] == _EPS[0] and rule.betas in _BETAS]
    coupled = dict.fromkeys([*decays, *_DECAYS])
    yield [replace(rule, kind="Adam", coupled=decay) for rule in typical for decay in coupled]


def directions(
    rule: Rule, weights: Sequence[Tensor], gradients: Sequence[Tensor], there: Sequence[Tensor]
) -> list[Tensor]:
    """Return the direction of each update: what a learning rate of one would subtract, without decoupled decay.

    Args:
        rule: the rule.
        weights: all weights before each update, as one vector.
        gradients: their gradients for each update.
        there: one for a weight of a parameter that has a gradient, else zero. Without one, a parameter stays as it is.
    """
    found: list[Tensor] = []
    first = second = largest = count = torch.zeros_like(weights[0])
    for number, (weight, raw, mask) in enumerate(zip(weights, gradients, there, strict=True), start=1):
        gradient = raw + rule.coupled * weight * mask if rule.coupled else raw
        count = torch.full_like(count, number) if TOGETHER in rule.apart else count + mask
        if rule.kind == "SGD":
            momentum = float(str(rule.settings.get("momentum", 0.0)))
            first = torch.where(mask > 0, momentum * first + gradient, first)
            found.append(mask * (gradient + momentum * first if rule.settings.get("nesterov") else first))
            continue
        first = torch.where(mask > 0, rule.betas[0] * first + (1 - rule.betas[0]) * gradient, first)
        second = torch.where(mask > 0, rule.betas[1] * second + (1 - rule.betas[1]) * gradient**2, second)
        largest = torch.maximum(largest, second) if rule.settings.get("amsgrad") else second
        found.append(mask * _of_adam(rule, first, largest, count.clamp(min=1)))
    return found


def _of_adam(rule: Rule, first: Tensor, second: Tensor, count: Tensor) -> Tensor:
    if UNCORRECTED not in rule.apart:
        first, second = first / (1 - rule.betas[0] ** count), second / (1 - rule.betas[1] ** count)
    eps = float(str(rule.settings["eps"]))
    return first / ((second + eps).sqrt() if INSIDE in rule.apart else second.sqrt() + eps)
