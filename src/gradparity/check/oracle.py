"""What the reference cannot vouch for itself: the gradient of a whole window, in float64 and in one graph.

The loss is written down once more, as the negative log-likelihood of all tokens that are not padding over their number.
Nothing is called that the reference calls for it, so an error that a loop shares with the reference is seen here.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradparity.check.observe import Loop, observe
from gradparity.faults import stress
from gradparity.faults.stress import Cast
from gradparity.parity.batch import PADDING, Batch
from gradparity.parity.state import Part
from gradparity.trace.record import Event, Record
from gradparity.trace.snapshot import Seen

ROUNDING = 1e-5
"""Relative to the length of a gradient in fp32, whose epsilon is 1.2e-7."""


def first_window(cast: Cast) -> Sequence[Batch]:
    """The microbatches of the first step."""
    return cast.batches[: cast.plan.accumulation_steps]


def error_of_first_step(
    loop: Loop,
    build: Callable[[str], Cast] = stress.build,
    window: Callable[[Cast], Sequence[Batch]] = first_window,
    seed: int = 0,
) -> float | None:
    """The largest relative error of a gradient in the first step of ``loop``, by the oracle; ``None`` without a step.

    In fp32, without dropout, whose masks would be others in float64, and with a threshold that is never reached.

    Args:
        loop: called with everything in the cast, by name.
        build: makes the cast.
        window: what the first step is made of, on all ranks together.
        seed: of the weights.
    """
    expected: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}

    def alike(precision: str) -> Cast:
        cast = build(precision)
        cast.model.get_submodule("dropout").p = 0.0  # type: ignore[assignment]  # a number, not a tensor or module
        expected.update(gradients(cast.model, window(cast)))
        return replace(cast, plan=replace(cast.plan, max_norm=1e9))

    class First:
        def write(self, record: Record, seen: Seen) -> None:
            if record.event == Event.READY and record.step == 0:
                values = seen[Part.GRADIENTS].items()
                found.update({n: g.to_dense().double() for n, g in values if isinstance(g, Tensor)})

    observe(loop, alike, "fp32", writer=First(), seed=seed)
    if not found:
        return None
    return max(float((found.get(n, torch.zeros(())) - e).norm() / e.norm()) for n, e in expected.items() if e.any())


def gradients(model: nn.Module, window: Sequence[Batch]) -> dict[str, Tensor]:
    """By parameter, the gradient of the mean over a window's tokens, in float64."""
    model = in_float64(model)
    window_mean(model, window).backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


def in_float64(model: nn.Module) -> nn.Module:
    """A copy of the stress model that computes in float64."""
    wide: Any = copy.deepcopy(model).double()
    wide.measurements = lambda tokens: stress.StressModel.measurements(wide, tokens).double()
    module: nn.Module = wide
    return module


def window_mean(model: nn.Module, window: Sequence[Batch]) -> Tensor:
    """The mean loss of all tokens of a window, padding aside."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for inputs, targets in window:
        told = torch.log_softmax(model(inputs), dim=-1)
        for row, column in (targets != PADDING).nonzero().tolist():
            total = total - told[row, column, targets[row, column]]
            tokens += 1
    return total / tokens
