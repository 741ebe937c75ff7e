"""Faults of half precision: the dtype of each computation."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress import run_of
from gradparity.parity.batch import summed_loss
from gradparity.parity.place import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train, train_step

HALVES = (
    Fault(
        name="autocast-around-all-steps",
        symptom="Autocast's cached half-precision weights are never renewed; the forward sees no update.",
        needs="autocast",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.LOSS),
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
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
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
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
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
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
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
        first=Divergence(Place(0, 1, Phase.ACCUMULATED), Part.GRADIENTS),
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
