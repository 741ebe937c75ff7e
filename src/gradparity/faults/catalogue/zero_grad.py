"""Faults of zero_grad: when gradients are cleared, for which parameters, and to None or to zero."""

from gradparity.faults.fault import Divergence, Fault, FaultKind
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train, train_step

ZERO_GRAD = (
    Fault(
        name="zero-grad-missing",
        symptom="Each step uses the sum of all gradients since the beginning.",
        needs="more than one step",
        first=Divergence(Place(1, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.optimizer.zero_grad(set_to_none=True)
""",
        },
        sources=(
            "meta-pytorch/torchforge#71",
            "snakers4/silero-vad#699",
            "wenet-e2e/wekws#73",
            "pytorch/pytorch#47175",
            "Lightning-AI/pytorch-lightning#4083",
            "Lightning-AI/pytorch-lightning#6147",
        ),
    ),
    Fault(
        name="zero-grad-once-an-epoch",
        symptom="Each step uses the sum of all gradients since the epoch began.",
        needs="more than one step in an epoch",
        first=Divergence(Place(1, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.optimizer.zero_grad(set_to_none=True)
""",
            train: """
     for epoch in epochs:
+        run.optimizer.zero_grad(set_to_none=True)
""",
        },
        sources=("pytorch/pytorch#47175",),
    ),
    Fault(
        name="zero-grad-before-every-microbatch",
        symptom="Only the last microbatch of each window counts.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 1, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            train_step: """
     for index, microbatch in enumerate(window.microbatches):
+        run.optimizer.zero_grad(set_to_none=True)
""",
        },
        sources=(
            "bytetriper/RAE#67",
            "HorizonRobotics/alf#1788",
            "tatsu-lab/alpaca_farm#57",
        ),
    ),
    Fault(
        name="zero-grad-between-backward-and-unscale",
        symptom="The gradients are gone when they are needed; a GradScaler complains that it saw none.",
        needs="a loss scaler; without one nothing raises and nothing is learned",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
+    run.optimizer.zero_grad(set_to_none=True)
     run.scaler.unscale_(run.optimizer)
""",
        },
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="zero-grad-before-step",
        symptom="Nothing is learned: the optimizer finds no gradient.",
        needs="nothing",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
     run.clip(run.parameters)
+    run.optimizer.zero_grad(set_to_none=True)
""",
        },
    ),
    Fault(
        name="zeros-before-step",
        symptom="Nothing is learned but weight decay and what momentum is left.",
        needs="nothing",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
     run.clip(run.parameters)
+    run.optimizer.zero_grad(set_to_none=False)
""",
        },
    ),
    Fault(
        name="zeros-instead-of-none",
        symptom="Weight decay and momentum move a parameter that this step did not use.",
        needs="a parameter that is used in one step, and not in a later one",
        first=Divergence(Place(1, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.optimizer.zero_grad(set_to_none=True)
+    run.optimizer.zero_grad(set_to_none=False)
""",
        },
        sources=(
            "pytorch/pytorch#42754",
            "pytorch/pytorch#83769",
            "megvii-model/DetNAS#3",
            "iamwangyabin/S-Prompts#2",
        ),
    ),
    Fault(
        name="none-filled-with-zeros",
        symptom="Weight decay and momentum move a parameter that this step did not use.",
        needs="a parameter that a step does not use",
        first=Divergence(Place(1, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
+    for p in run.parameters:
+        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
     run.scaler.unscale_(run.optimizer)
""",
        },
        sources=(
            "pytorch/pytorch#58511",
            "pytorch/pytorch#57081",
        ),
    ),
    Fault(
        name="only-one-group-zeroed",
        symptom="The parameters of the other group use the sum of all gradients since the beginning.",
        needs="more than one parameter group",
        first=Divergence(Place(1, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.optimizer.zero_grad(set_to_none=True)
+    for p in run.optimizer.param_groups[0]["params"]:
+        p.grad = None
""",
        },
    ),
    Fault(
        name="zero-grad-after-the-first-backward",
        symptom="The first microbatch of each window does not count.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 1, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.optimizer.zero_grad(set_to_none=True)
@@
         run.route(run.scaler.scale(loss), run.parameters)
+        if index == 0:
+            run.optimizer.zero_grad(set_to_none=True)
""",
        },
    ),
)
