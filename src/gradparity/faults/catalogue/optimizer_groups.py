"""Faults of the optimizer's parameters: which ones it holds, and how they decay."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import build
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train_step
from gradparity.training.optimizers import decay_groups

OPTIMIZER_GROUPS = (
    Fault(
        name="parameter-missing-from-the-optimizer",
        symptom="A layer stays as it was initialized.",
        needs="nothing",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            decay_groups: """
-    trained = [p for p in parameters if p.requires_grad]
+    trained = [p for p in parameters if p.requires_grad and p.shape != (8, 4)]
""",
        },
        sources=(
            "ACEsuit/mace#1529",
            "open-mmlab/OpenPCDet#960",
            "zjunlp/HVPNeT#5",
        ),
    ),
    Fault(
        name="vectors-missing-from-the-optimizer",
        symptom="Normalization gains and biases stay as they were initialized.",
        needs="parameters of one dimension",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            decay_groups: """
-        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
""",
        },
    ),
    Fault(
        name="parameter-replaced-after-the-optimizer-was-built",
        symptom="The optimizer updates a tensor that the model no longer has.",
        needs="a parameter that is replaced",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.PARAMETERS),
        changes={
            build: """
+    model.up.weight = nn.Parameter(model.up.weight.detach().clone())
     scheduler = warmup_cosine(optimizer, warmup_steps=2, total_steps=EPOCHS * -(-MICROBATCHES // ACCUMULATION_STEPS))
""",
        },
        sources=(
            "pytorch/pytorch#7844",
            "allenai/allennlp#205",
            "huggingface/transformers#4450",
        ),
    ),
    Fault(
        name="one-decay-for-all-parameters",
        symptom="Biases and normalization gains decay as the weights do.",
        needs="parameters that should not decay",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            decay_groups: """
-        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
+        {"params": [p for p in trained if p.dim() < 2], "weight_decay": weight_decay},
""",
        },
    ),
    Fault(
        name="weight-decay-missing",
        symptom="The weights grow: nothing decays.",
        needs="weight decay",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            decay_groups: """
-        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
+        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": 0.0},
""",
        },
    ),
    Fault(
        name="adam-with-l2-instead-of-adamw",
        symptom="The decay is added to the gradient, and divided by its own size.",
        needs="weight decay",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            build: """
-    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
+    optimizer = torch.optim.Adam(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
""",
        },
    ),
    Fault(
        name="decayed-twice",
        symptom="Weights decay twice as fast.",
        needs="weight decay",
        first=Divergence(Place(0, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            train_step: """
+    for group in run.optimizer.param_groups:
+        for p in group["params"]:
+            if p.grad is not None:
+                p.data.mul_(1 - group["lr"] * group["weight_decay"])
     run.scaler.step(run.optimizer)
""",
        },
        sources=("huggingface/pytorch-image-models#2750",),
    ),
    Fault(
        name="l2-penalty-on-top-of-weight-decay",
        symptom="Weights decay twice, once of it through the moments and past the clipping.",
        needs="weight decay",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
+    for group in run.optimizer.param_groups:
+        for p in group["params"]:
+            if p.grad is not None:
+                p.grad.add_(p.detach(), alpha=group["weight_decay"])
     run.scaler.step(run.optimizer)
""",
        },
    ),
    Fault(
        name="unused-parameters-decayed",
        symptom="A parameter that this step did not use shrinks.",
        needs="a parameter that a step does not use",
        first=Divergence(Place(1, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            train_step: """
+    for group in run.optimizer.param_groups:
+        for p in group["params"]:
+            if p.grad is None:
+                p.data.mul_(1 - group["lr"] * group["weight_decay"])
     run.scaler.step(run.optimizer)
""",
        },
        sources=("KellerJordan/Muon#54",),
    ),
)
