"""Gradients that a loop changes itself before a step, and the reference with the same changes.

A loop may clip by value, add noise, or scale each layer on its own. The plan asks for nothing like it, so nobody but
its author can judge it. The reference takes over the changed gradients; everything else is compared.

One common factor for all gradients of a step is no such change: it is a clip by norm, or a wrong scale.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import nn

from gradparity.check.closest_reference import ClosestReference, same_updates
from gradparity.check.intended_reference import NORM, Intended, Said
from gradparity.check.observe import ObservedLoop, observe_reference
from gradparity.check.run_in_child import Probe
from gradparity.faults import Fault
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
    if clips or not probe.observed.end.finished or not changes_gradients(probe.observed):
        return None
    change = Intended(with_own_gradients(folder), OWN_GRADIENTS, "changes its gradients itself", option=NORM)
    meant = (change, *(one for one in closest.meant if one.option != NORM))
    run = observe_reference([one.change for one in meant], probe.precision)
    return ClosestReference(run, meant) if same_updates(probe.observed, run, probe.asked.unasked) else None


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


def with_own_gradients(folder: Path) -> Fault:
    """Return the change that makes the reference step with the gradients of the loop whose trace is in ``folder``."""
    return Fault(
        name="own-gradients",
        symptom="The gradients of each step are those that the loop makes of them.",
        needs="nothing",
        first=None,
        changes={
            build: f"""
     optimizer.register_step_post_hook(lambda *_: model.follow())
+    from gradparity.check.own_gradients import Gradients
+    model.gradients = Gradients({str(folder)!r})
""",
            train_step: """
-    run.clip(run.parameters)
+    run.model.gradients.put_into(run.model)
""",
        },
    )


class Gradients:
    """The gradients of each step of a loop, in order.

    Args:
        folder: holds its trace with all tensors.
    """

    def __init__(self, folder: str) -> None:
        self._trace = read(Path(folder))
        self._left = iter([record for record in self._trace.records if record.event == Event.READY])

    def put_into(self, model: nn.Module) -> None:
        """Replace the gradients of ``model`` by those of the next step."""
        record = next(self._left, None)
        for name, p in model.named_parameters() if record is not None else ():
            printed = record.parts[Part.GRADIENTS].get(name)
            if not isinstance(printed, Fingerprint):
                p.grad = None
                continue
            tensor = tensor_of(self._trace, record, Part.GRADIENTS, name)
            if tensor is not None and p.grad is not None:
                p.grad.copy_(tensor)  # in place: whatever lies in memory as before stays so
