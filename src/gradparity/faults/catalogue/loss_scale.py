"""Faults of the loss scale: which values are multiplied by it, and which are divided by it again."""

from gradparity.faults.fault import Divergence, Fault, FaultKind
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train_step

LOSS_SCALE = (
    Fault(
        name="unscale-every-microbatch",
        symptom="GradScaler refuses to unscale the same gradients twice.",
        needs="a loss scale, and more than one accumulation step",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
         run.route(run.scaler.scale(loss), run.parameters)
+        run.scaler.unscale_(run.optimizer)
""",
        },
        sources=(
            "huggingface/transformers#23905",
            "microsoft/Swin-Transformer#311",
            "huggingface/diffusers#8960",
        ),
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="unscaled-by-hand-and-by-step",
        symptom="Gradients are divided by the scale twice, and vanish; SGD stands still, Adam hides it.",
        needs="a loss scale",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.scaler.unscale_(run.optimizer)
-    yield Moment(Phase.UNSCALED)
+    for p in run.parameters:
+        if p.grad is not None:
+            p.grad /= run.scaler.get_scale()
""",
        },
    ),
    Fault(
        name="unscaled-again-inside-the-optimizer",
        symptom="The update is far too small: a fused optimizer was handed the scale of unscaled gradients.",
        needs="a loss scale",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
+    for p in run.parameters:
+        if p.grad is not None:
+            p.grad /= run.scaler.get_scale()
     run.scaler.step(run.optimizer)
""",
        },
        sources=(
            "pytorch/pytorch#94060",
            "Lightning-AI/pytorch-lightning#15501",
            "Lightning-AI/pytorch-lightning#15555",
        ),
    ),
    Fault(
        name="loss-not-scaled",
        symptom="Gradients are divided by a scale that they never had; small ones are zero in fp16.",
        needs="a loss scale",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
+        run.route(loss, run.parameters)
""",
        },
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="loss-not-scaled-after-the-first-microbatch",
        symptom="Only the first microbatch of each window counts, the others are divided by the scale.",
        needs="a loss scale, and more than one accumulation step",
        first=Divergence(Place(0, 1, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
+        run.route(run.scaler.scale(loss) if index == 0 else loss, run.parameters)
""",
        },
    ),
    Fault(
        name="loss-scaled-twice",
        symptom="Gradients are larger than they should be by the scale, and overflow.",
        needs="a loss scale",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
+        run.route(run.scaler.scale(run.scaler.scale(loss)), run.parameters)
""",
        },
    ),
    Fault(
        name="half-of-the-parameters-unscaled-late",
        symptom="One optimizer's gradients are divided by the scale that the other's update has left.",
        needs="two optimizers, or groups, and a scale that changes between them",
        first=Divergence(Place(1, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
     run.scaler.unscale_(run.optimizer)
+    if run.scaler.is_enabled() and run.scaler._get_growth_tracker() + 1 == run.scaler.get_growth_interval():
+        for p in run.optimizer.param_groups[1]["params"]:
+            if p.grad is not None:
+                p.grad /= run.scaler.get_growth_factor()
""",
        },
        sources=(
            "huggingface/accelerate#439",
            "neosr-project/neosr#9",
        ),
    ),
    Fault(
        name="unscaled-by-the-next-scale",
        symptom="In each step after which the scale grows, gradients are divided by the scale of the next one.",
        needs="a loss scale that grows",
        first=Divergence(Place(1, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
     run.scaler.unscale_(run.optimizer)
+    if run.scaler.is_enabled() and run.scaler._get_growth_tracker() + 1 == run.scaler.get_growth_interval():
+        for p in run.parameters:
+            if p.grad is not None:
+                p.grad /= run.scaler.get_growth_factor()
""",
        },
        sources=("deepspeedai/DeepSpeed#8588",),
    ),
)
