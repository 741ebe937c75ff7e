"""An oracle for the reference itself: the gradient of a whole window, in float64 and in one graph.

The loss is written once more: the negative log-likelihood of all tokens that are not padding, divided by their number.
It calls nothing that the reference calls for its loss, so an error that a loop shares with the reference shows here.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradparity.check.running.observe import UserLoop, observe
from gradparity.faults import stress_scenario
from gradparity.faults.stress_scenario import Cast
from gradparity.parity.batch import PADDING, Batch
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record
from gradparity.trace.snapshot import Snapshot

RELATIVE_ROUNDING = 1e-5
"""The largest error that counts as rounding, relative to the norm of a gradient in fp32, whose epsilon is 1.2e-7."""


def first_window(cast: Cast, number: int | None = None) -> Sequence[Batch]:
    """Return the microbatches of the first step: the first ``number``, by default as many as the plan says."""
    return cast.batches[: number or cast.plan.accumulation_steps]


def error_of_first_gradient(
    loop: UserLoop,
    build: Callable[[str], Cast] = stress_scenario.build,
    window: Callable[[Cast], Sequence[Batch]] = first_window,
    seed: int = 0,
) -> float | None:
    """Return the largest relative error of a gradient in the first step of ``loop``; ``None`` without a step.

    The loop runs in fp32 and is compared with the oracle. There is no dropout, since its masks would differ in float64,
    and the clipping threshold is never reached.

    Args:
        loop: called with everything in the cast, by name.
        build: makes the cast.
        window: returns the microbatches of the first step, of all ranks together.
        seed: of the weights.
    """
    expected: dict[str, Tensor] = {}
    parameters: dict[str, nn.Parameter] = {}
    found: dict[str, Tensor] = {}

    def prepared(precision: str) -> Cast:
        cast = build(precision)
        cast.model.get_submodule("dropout").p = 0.0  # type: ignore[assignment]  # a number, not a tensor or module
        expected.update(window_gradients(cast.model, window(cast)))
        parameters.update(cast.model.named_parameters())
        return replace(cast, plan=replace(cast.plan, max_norm=1e9))

    class FirstGradient:
        def write(self, record: Record, seen: Snapshot) -> None:
            if record.event == Event.READY and record.step == 0:
                values = seen[Part.GRADIENTS].items()
                found.update({n: g.to_dense().double() for n, g in values if isinstance(g, Tensor)})
                for name in [n for n, p in parameters.items() if not p.requires_grad]:  # the loop has frozen it
                    expected.pop(name, None)

    observe(loop, prepared, "fp32", writer=FirstGradient(), seed=seed)
    if not found:
        return None
    return max(float((found.get(n, torch.zeros(())) - e).norm() / e.norm()) for n, e in expected.items() if e.any())


def window_gradients(model: nn.Module, window: Sequence[Batch]) -> dict[str, Tensor]:
    """Return, by parameter, the gradient of the mean loss over a window's tokens, in float64."""
    model = in_float64(model)
    window_mean(model, window).backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.named_parameters()}


def in_float64(model: nn.Module) -> nn.Module:
    """Return a copy of the stress model that computes in float64."""
    wide: Any = copy.deepcopy(model).double()
    wide.measurements = lambda tokens: stress_scenario.StressModel.measurements(wide, tokens).double()
    module: nn.Module = wide
    return module


def window_mean(model: nn.Module, window: Sequence[Batch]) -> Tensor:
    """Return the mean loss over all tokens of a window that are not padding."""
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for inputs, targets in window:
        log_probabilities = torch.log_softmax(model(inputs), dim=-1)
        for row, column in (targets != PADDING).nonzero().tolist():
            total = total - log_probabilities[row, column, targets[row, column]]
            tokens += 1
    return total / tokens
