"""Faults with a number in them, such as a wrong threshold. The number is derived from what the loop did.

No dictionary can list them. Each is only a guess, until the reference with it behaves as the loop does, bit for bit.
"""

import math
from collections.abc import Iterator
from fractions import Fraction

from gradparity.check.running.observe import ObservedLoop
from gradparity.faults import Fault
from gradparity.faults.stress_scenario import ACCUMULATION_STEPS, MAX_NORM
from gradparity.parity.likely_cause import common_ratio
from gradparity.parity.lockstep import Comparison
from gradparity.parity.state import Part
from gradparity.trace.events import Event
from gradparity.trace.fingerprint import Fingerprint
from gradparity.training import Phase, clip_by_norm, train_step, windows


def inferred_faults(loop: ObservedLoop, first: Comparison) -> Iterator[Fault]:
    """Yield faults that could explain the ``first`` divergence of ``loop`` from the reference."""
    microbatches = sum(r.event == Event.FORWARD and r.step == 0 for r in loop.trace.records)
    if microbatches not in (0, ACCUMULATION_STEPS):
        yield accumulating(microbatches)
    part, factor = first.mismatches[0].part, common_ratio([m for m in first.mismatches if m.part != Part.BUFFERS])
    if first.place.phase == Phase.CLIPPED and part == Part.GRADIENTS:
        yield from map(clipping_to, nice(largest_norm(loop)))
    if factor is not None and factor > 0 and part == Part.LOSS:
        for number in nice(factor):
            yield from _loss_times(number)


def accumulating(microbatches: int) -> Fault:
    """Return a fault that uses a different number of accumulation steps."""
    return Fault(
        name=f"accumulates-{microbatches}-instead-of-{ACCUMULATION_STEPS}",
        symptom=f"A step is made of {microbatches} microbatches.",
        needs="more microbatches than that",
        first=None,
        changes={
            windows: f"""
-    while group := tuple(islice(remaining, accumulation_steps)):
+    while group := tuple(islice(remaining, {microbatches})):
"""
        },
    )


def clipping_to(threshold: float) -> Fault:
    """Return a fault that clips to a different threshold."""
    return Fault(
        name=f"clipped-to-{threshold:g}-instead-of-{MAX_NORM:g}",
        symptom=f"Gradients are clipped to a norm of {threshold:g}, whatever threshold the loop asks for.",
        needs=f"a norm above {min(threshold, MAX_NORM):g}",
        first=None,
        changes={
            clip_by_norm: f"""
-        nn.utils.clip_grad_norm_(parameters, max_norm)
+        nn.utils.clip_grad_norm_(parameters, {threshold!r})
"""
        },
    )


def _loss_times(factor: float) -> Iterator[Fault]:
    """Yield faults that multiply the loss by ``factor``, before it is normalized or after."""
    for wrong in (
        f"{factor!r} * run.loss(run.model, microbatch) / window.normalizer",
        f"run.loss(run.model, microbatch) / window.normalizer * {factor!r}",
        f"run.loss(run.model, microbatch) / window.normalizer / {1 / factor:.12g}",
    ):
        yield Fault(
            name=f"loss-times-{factor:.4g}",
            symptom=f"Every loss, and with it every gradient, is multiplied by {factor:.4g}.",
            needs="nothing",
            first=None,
            changes={
                train_step: f"""
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = {wrong}
"""
            },
        )


def largest_norm(loop: ObservedLoop) -> float:
    """Return the largest gradient norm that the optimizer was given: the threshold, if it was ever reached."""
    ready = (r.parts[Part.GRADIENTS].values() for r in loop.trace.records if r.event == Event.READY)
    norms = [math.hypot(*(g.norm for g in prints if isinstance(g, Fingerprint))) for prints in ready]
    return max((norm for norm in norms if math.isfinite(norm)), default=0.0)


def nice(number: float) -> list[float]:
    """Return numbers that a programmer might have written, close to a measured one.

    >>> nice(4.9999998), nice(0.33333331)
    ([5.0], [0.3333333333333333])
    """
    written = [float(f"{number:.{digits}g}") for digits in (1, 2, 3)]
    written.append(float(Fraction(number).limit_denominator(64)))
    return list(dict.fromkeys(n for n in written if n and abs(n / number - 1) < 1e-5)) if number else []
