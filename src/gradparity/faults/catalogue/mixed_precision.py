"""Faults of half precision: the dtype of each computation."""

from gradparity.faults.fault import Fault
from gradparity.faults.stress import run_of
from gradparity.parity.batch import summed_loss
from gradparity.training import train, train_step

HALVES = (
    Fault(
        name="autocast-around-all-steps",
        symptom="Autocast's cached half-precision weights are never renewed; the forward sees no update.",
        needs="autocast",
        first="step 1, microbatch 0, forward: loss",
        changes={
            train: """
-        for window in windows(batches, accumulation_steps, count):
-            take_step(run, window)
+        with run.autocast():
+            for window in windows(batches, accumulation_steps, count):
+                take_step(run, window)
""",
        },
        sources=("X-GenGroup/Flow-Factory#186",),
    ),
    Fault(
        name="autocast-missing",
        symptom="The forward computes in fp32: slower, and other bits.",
        needs="autocast",
        first="step 0, microbatch 0, forward: loss",
        changes={
            train_step: """
-        with run.autocast():
+        with contextlib.nullcontext():
             loss = run.loss(run.model, microbatch) / window.normalizer
""",
        },
    ),
    Fault(
        name="bf16-instead-of-fp16",
        symptom="The forward has eight bits of precision where eleven were asked for; nothing overflows.",
        needs="autocast to fp16",
        first="step 0, microbatch 0, forward: loss",
        changes={
            run_of: """
-        autocast=autocast,
+        autocast=partial(torch.autocast, "cpu", torch.bfloat16),
""",
        },
    ),
    Fault(
        name="loss-in-half-precision",
        symptom="The sum of the losses is rounded to half precision.",
        needs="autocast",
        first="step 0, microbatch 0, forward: loss",
        changes={
            summed_loss: """
-    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
     targets = batch.targets.flatten()
-    return F.cross_entropy(logits.flatten(0, -2), targets, ignore_index=PADDING, reduction="sum")
+    with torch.autocast("cpu", enabled=False):
+        return F.cross_entropy(logits.flatten(0, -2), targets, ignore_index=PADDING, reduction="sum")
""",
        },
    ),
    Fault(
        name="gradients-rounded-to-half-precision",
        symptom="Small gradients become zero, and the sums over microbatches lose digits.",
        needs="nothing",
        first="step 0, microbatch 1, accumulated: gradients",
        changes={
            train_step: """
         run.route(run.scaler.scale(loss), run.parameters)
+        for p in run.parameters:
+            if p.grad is not None:
+                p.grad.copy_(p.grad.bfloat16())
""",
        },
    ),
)
