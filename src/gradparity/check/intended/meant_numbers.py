"""A number of accumulation steps and a threshold that a loop means, as changes to the reference's plan.

They leave all other lines alone, so that a known fault can be added to a reference with other numbers.
"""

from gradparity.faults import Change
from gradparity.faults.stress_scenario import build


def meant_steps(microbatches: int) -> Change:
    """Return the change that makes the reference accumulate a different number of microbatches."""
    patch = f"""
+    globals()["ACCUMULATION_STEPS"] = {microbatches}
     plan = Plan(
"""
    return Change(f"with-{microbatches}-accumulation-steps", {build: patch})


def meant_norm(threshold: float) -> Change:
    """Return the change that makes the reference clip to a different norm."""
    patch = f"""
+    globals()["MAX_NORM"] = {threshold!r}
     now = state_of(run)
"""
    return Change(f"with-a-norm-of-{threshold:g}", {build: patch})
