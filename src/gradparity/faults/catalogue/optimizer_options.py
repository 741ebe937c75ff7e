"""Faults of the optimizer's options: betas, epsilon, decay, and state that is there before the first step."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import build
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase
from gradparity.training.optimizers import decay_groups

OPTIMIZER_OPTIONS = (
    Fault(
        name="betas-hard-coded",
        symptom="The second moments forget 50 times too fast: beta2 is 0.95, whatever the options say.",
        needs="Adam",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            build: """
-    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
+    groups = decay_groups(model.parameters(), weight_decay=0.1)
+    optimizer = AdamW(groups, lr=0.02, betas=(0.9, 0.95), amsgrad=True)
""",
        },
        sources=("pytorch/torchtitan#1282",),
    ),
    Fault(
        name="epsilon-hard-coded",
        symptom="Parameters with tiny gradients learn slower: epsilon is 1e-6, whatever the options say.",
        needs="Adam",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            build: """
-    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
+    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, eps=1e-6, amsgrad=True)
""",
        },
        sources=("ecmwf/WeatherGenerator#1602",),
    ),
    Fault(
        name="decay-not-times-the-learning-rate",
        symptom="The weights shrink by a tenth in each step: the decay is not multiplied by the learning rate.",
        needs="weight decay",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            build: """
-    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
+    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.0), lr=0.02, amsgrad=True)
+    def decay(*_: object) -> None:
+        for p in optimizer.param_groups[0]["params"]:
+            if p.grad is not None:
+                p.data.mul_(1 - 0.1)
+    optimizer.register_step_pre_hook(decay)
""",
        },
        sources=("lucidrains/lion-pytorch#39",),
    ),
    Fault(
        name="normalization-gains-decayed",
        symptom="Normalization gains decay as the weights do, biases do not: a rule by name or type missed them.",
        needs="normalization gains, and weight decay",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            decay_groups: """
-        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
-        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
+        {"params": [p for p in trained if p.dim() >= 2 or (p == 1).all()], "weight_decay": weight_decay},
+        {"params": [p for p in trained if p.dim() < 2 and not (p == 1).all()], "weight_decay": 0.0},
""",
        },
        sources=("huggingface/transformers#35927",),
    ),
    Fault(
        name="step-to-allocate-state-counted",
        symptom="The first update is too small: a step with zero gradients has allocated the moments, and counts.",
        needs="an optimizer that counts its steps",
        first=Divergence(Place(0, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            build: """
     optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
+    for p in model.parameters():
+        p.grad = torch.zeros_like(p)
+    for lr in 0.0, 0.02:
+        for group in optimizer.param_groups:
+            group["lr"] = lr
+        if lr == 0.0:
+            optimizer.step()
+    optimizer.zero_grad()
""",
        },
        sources=(
            "NVIDIA/Megatron-LM#5976",
            "NVIDIA-NeMo/Megatron-Bridge#5680",
            "Tencent-Hunyuan/UniRL#440",
        ),
    ),
)
