"""Gradients that a loop changes itself before a step, and the reference with the same changes.

A loop may clip by value, add noise, or scale each layer on its own. The plan asks for nothing like it, so nobody but
its author can judge it. The reference takes over the changed gradients; everything else is compared.

One common factor for all gradients of a step is no such change: it is a clip by norm, or a wrong scale.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from gradparity.auditing.finding import RuleVerdict
from gradparity.check.intended.closest_reference import ClosestReference, same_updates
from gradparity.check.intended.intended_reference import NORM, Intended, Said
from gradparity.check.running.observe import ObservedLoop, observe_reference
from gradparity.check.running.probe import Probe
from gradparity.faults import Change
from gradparity.faults.patching import ClashError
from gradparity.faults.stress_scenario import build
from gradparity.parity.state import Part
from gradparity.trace.events import Event, Record
from gradparity.trace.fingerprint import Fingerprint
from gradparity.trace.trace_file import read, tensor_of
from gradparity.training import train_step

_SAME_FACTOR = 1e-3
"""Factors that are this close, relative to each other, are one: norms are rounded."""


OWN_GRADIENTS = "with its gradients as the loop changes them"


def follow_gradients(probe: Probe, closest: ClosestReference, said: Said, folder: Path) -> ClosestReference | None:
    """Return the reference with the loop's changes of the gradients, if that is all that differs from ``closest``.

    Args:
        probe: the loop. One that clips by norm, or reads the threshold for it, is not followed: it says what it means.
        closest: the reference that it is compared with.
        said: what its user says that it means.
        folder: holds its trace with all tensors.
    """
    clips = "max_norm" in probe.asked.read or probe.audit.threshold is not None or said.max_norm is not None
    wrong = any(finding.verdict == RuleVerdict.WRONG for finding in probe.audit.findings)
    hooks = probe.ways.hooks
    changes = hooks or changes_gradients(probe.observed)
    if clips or wrong or not changes or not probe.observed.end.finished:
        return None
    by = "by hooks" if hooks else "itself"
    change = Intended(with_own_gradients(folder, hooks), OWN_GRADIENTS, f"changes its gradients {by}", option=NORM)
    meant = (change, *(one for one in closest.meant if one.option != NORM))
    with suppress(ClashError):
        run = observe_reference([one.change for one in meant], probe.precision)
        if same_updates(probe.observed, run, probe.asked.unasked):
            return ClosestReference(run, meant)
    return None


def changes_gradients(loop: ObservedLoop) -> bool:
    """Return whether a loop changes the gradients of some step after its last backward, by more than one factor."""
    return any(
        max(factors) - min(factors) > _SAME_FACTOR * max(map(abs, factors))
        for factors in map(list, _factors(loop))
        if factors
    )


def _factors(loop: ObservedLoop) -> Iterator[Iterator[float]]:
    """Yield, for each step, the factors by which the norms of its gradients change from the last backward on."""
    before: Record | None = None
    for record in loop.trace.records:
        if record.event in (Event.ACCUMULATED, Event.UNSCALED):
            before = record
        elif record.event == Event.READY and before is not None:
            yield _ratios(before.parts[Part.GRADIENTS], record.parts[Part.GRADIENTS])
            before = None


def _ratios(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[float]:
    for name, one in before.items():
        other = after.get(name)
        if isinstance(one, Fingerprint) and one.norm and math.isfinite(one.norm):
            yield other.norm / one.norm if isinstance(other, Fingerprint) else 0.0


def with_own_gradients(folder: Path, hooks: bool) -> Change:
    """Return the change that makes the reference step with the gradients of a loop.

    Args:
        folder: holds the trace of the loop with all tensors.
        hooks: whether hooks change them in the backward already.
    """
    return Change(
        "own-gradients",
        {
            build: f"""
     model = StressModel().to(PRECISIONS[precision].parameters)
+    from gradparity.check.intended.own_gradients import Gradients
+    model.gradients = Gradients(model, {str(folder)!r}, {hooks!r})
""",
            train_step: """
-    run.clip(run.parameters)
+    run.model.gradients.of_a_step()
""",
        },
    )


class Gradients:
    """The gradients of a loop after each backward and before each step.

    Args:
        model: gets them in place of its own.
        folder: holds the loop's trace with all tensors.
        hooks: whether it gets those after each backward too.
    """

    def __init__(self, model: nn.Module, folder: str, hooks: bool) -> None:
        self._named, self._trace = dict(model.named_parameters()), read(Path(folder))
        records = self._trace.records
        self._ready = iter([r for r in records if r.event == Event.READY])
        self._backwards = iter([r for r in records if r.event == Event.ACCUMULATED])
        self._now: Record | None = None
        if hooks:
            model.register_forward_pre_hook(self._begins)
            for name, p in self._named.items():
                p.register_post_accumulate_grad_hook(partial(self._accumulated, name))

    def of_a_step(self) -> None:
        """Replace the gradients by those of the next step."""
        if (record := next(self._ready, None)) is not None:
            for name, p in self._named.items():
                self._put(record, name, p)

    def _begins(self, model: nn.Module, _: object) -> None:
        if model.training and torch.is_grad_enabled():
            self._now = next(self._backwards, None)

    def _accumulated(self, name: str, p: Tensor) -> None:
        if self._now is not None:
            self._put(self._now, name, p)

    @torch.no_grad()
    def _put(self, record: Record, name: str, p: Tensor) -> None:
        if not isinstance(record.parts[Part.GRADIENTS].get(name), Fingerprint):
            p.grad = None
            return
        tensor = tensor_of(self._trace, record, Part.GRADIENTS, name)
        if tensor is not None and p.grad is not None:
            p.grad.copy_(tensor)  # in place: whatever lies in memory as before stays so
