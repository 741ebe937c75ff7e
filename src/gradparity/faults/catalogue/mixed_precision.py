"""Faults of half precision: the dtype of each computation."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import run_of
from gradparity.parity.batch import summed_loss
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train, train_step

MIXED_PRECISION = (
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
    Fault(
        name="weights-in-half-precision",
        symptom="Small updates are lost: each step rounds the weights to bf16, and gains at 1 never move.",
        needs="updates that are small beside the weights",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
     run.scaler.step(run.optimizer)
+    for p in run.parameters:
+        p.data.copy_(p.data.bfloat16())
""",
        },
        sources=(
            "vllm-project/speculators#765",
            "NVIDIA-NeMo/Automodel#3444",
        ),
    ),
    Fault(
        name="moments-in-half-precision",
        symptom="The moments are kept in bf16, where a second moment that should fall slowly stands still.",
        needs="an optimizer with moments",
        first=Divergence(Place(1, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            train_step: """
     run.scaler.step(run.optimizer)
+    for state in run.optimizer.state.values():
+        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
+            state[name].copy_(state[name].bfloat16())
""",
        },
        sources=("NVIDIA-NeMo/Automodel#2248",),
    ),
    Fault(
        name="gradients-exchanged-in-half-precision",
        symptom="Gradients lose digits on their way to the other ranks; asking for fp32 did not reach all of them.",
        needs="nothing",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
+    for p in run.parameters:
+        if p.grad is not None:
+            p.grad.copy_(p.grad.bfloat16())
     run.scaler.unscale_(run.optimizer)
""",
        },
        sources=(
            "pytorch/pytorch#190626",
            "jax-ml/jax#27496",
        ),
    ),
)
