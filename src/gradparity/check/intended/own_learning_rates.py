"""Learning rates that a loop sets itself, by hand or by its own scheduler, and the reference with the same ones."""

from collections.abc import Sequence

from gradparity.check.running.observe import ObservedLoop
from gradparity.faults import Change
from gradparity.faults.stress_scenario import build
from gradparity.parity.state import Part
from gradparity.trace.events import Event
from gradparity.trace.fingerprint import number_of
from gradparity.training import train_step

OWN_RATES = "with the learning rates that it sets"
"""The change of the reference, in words."""


def learning_rates(loop: ObservedLoop) -> list[tuple[float, ...]]:
    """Return the learning rate of each group with which each step was made or skipped, in order."""
    ready = (r.parts.get(Part.OPTIMIZER, {}) for r in loop.trace.records if r.event == Event.READY)
    return [tuple(number_of(value) for name, value in values.items() if name.endswith(".lr")) for values in ready]


def with_rates(rates: Sequence[tuple[float, ...]]) -> Change:
    """Return the change that makes the reference set these learning rates before each step, and follow no schedule."""
    return Change(
        "own-learning-rates",
        {
            build: f"""
     optimizer.register_step_post_hook(lambda *_: model.follow())
+    model.rates = {list(rates)!r}
""",
            train_step: """
     run.scaler.unscale_(run.optimizer)
+    for group, rate in zip(run.optimizer.param_groups, run.model.rates.pop(0), strict=True):
+        group["lr"] = rate
@@
-    if run.scaler.get_scale() >= scale > 1e-38:
-        run.scheduler.step()
""",
        },
    )
