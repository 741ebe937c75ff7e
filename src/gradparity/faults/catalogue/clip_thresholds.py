"""Faults of clipping: which norm, and which threshold."""

from gradparity.faults.fault import Divergence, Fault, FaultKind
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, clip_by_norm, train_step

CLIP_THRESHOLDS = (
    Fault(
        name="clip-by-value",
        symptom="Each element is cut off at the threshold: most steps are too long, and turned.",
        needs="a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            clip_by_norm: """
-        nn.utils.clip_grad_norm_(parameters, max_norm)
+        nn.utils.clip_grad_value_(parameters, max_norm)
""",
        },
    ),
    Fault(
        name="clip-by-largest-norm",
        symptom="The largest norm is held against a threshold that was meant for the L2 norm.",
        needs="a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            clip_by_norm: """
-        nn.utils.clip_grad_norm_(parameters, max_norm)
+        nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=math.inf)
""",
        },
    ),
    Fault(
        name="clip-by-absolute-norm",
        symptom="The absolute norm is held against a threshold that was meant for the L2 norm.",
        needs="a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            clip_by_norm: """
-        nn.utils.clip_grad_norm_(parameters, max_norm)
+        nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=1.0)
""",
        },
    ),
    Fault(
        name="always-scaled-to-the-threshold",
        symptom="Small gradients are made larger: every step has the length of the threshold.",
        needs="a norm below the threshold",
        first=Divergence(Place(1, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            clip_by_norm: """
-        nn.utils.clip_grad_norm_(parameters, max_norm)
+        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
+        for p in parameters:
+            if p.grad is not None:
+                p.grad.mul_(max_norm / (norm + 1e-6))
""",
        },
    ),
    Fault(
        name="clip-twice",
        symptom="None: what has been clipped is no longer above the threshold, but for its rounding.",
        needs="a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            clip_by_norm: """
         nn.utils.clip_grad_norm_(parameters, max_norm)
+        nn.utils.clip_grad_norm_(parameters, max_norm)
""",
        },
        kind=FaultKind.ROUNDING,
        hidden_by_rounding=True,
    ),
    Fault(
        name="clip-by-the-norm-of-a-flat-vector",
        symptom="None: the same norm, added up in another order.",
        needs="a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            clip_by_norm: """
-        nn.utils.clip_grad_norm_(parameters, max_norm)
+        gradients = [p.grad for p in parameters if p.grad is not None]
+        norm = torch.cat([g.flatten() for g in gradients]).norm()
+        for g in gradients:
+            g.mul_(torch.clamp(max_norm / (norm + 1e-6), max=1.0))
""",
        },
        kind=FaultKind.ROUNDING,
        hidden_by_rounding=True,
    ),
    Fault(
        name="clip-by-a-sum-of-squares",
        symptom="None: the same norm, rounded otherwise.",
        needs="a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            clip_by_norm: """
-        nn.utils.clip_grad_norm_(parameters, max_norm)
+        gradients = [p.grad for p in parameters if p.grad is not None]
+        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
+        if norm > max_norm:
+            for g in gradients:
+                g.mul_(max_norm / (norm + 1e-6))
""",
        },
        kind=FaultKind.ROUNDING,
        hidden_by_rounding=True,
    ),
    Fault(
        name="threshold-over-k",
        symptom="The threshold is K times too low.",
        needs="more than one accumulation step, and a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            clip_by_norm: """
-        nn.utils.clip_grad_norm_(parameters, max_norm)
+        nn.utils.clip_grad_norm_(parameters, max_norm / ACCUMULATION_STEPS)
""",
        },
    ),
    Fault(
        name="threshold-of-1",
        symptom="Clipped to 1.0, a common default, instead of the threshold that was asked for.",
        needs="a norm above 1",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            clip_by_norm: """
-        nn.utils.clip_grad_norm_(parameters, max_norm)
+        nn.utils.clip_grad_norm_(parameters, 1.0)
""",
        },
    ),
    Fault(
        name="clip-by-the-mean-of-group-norms",
        symptom="The norms of the groups are averaged, not the root of their squares' sum: clipping sets in too late.",
        needs="more than one parameter group, and a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.clip(run.parameters)
+    groups = [[p.grad for p in group["params"] if p.grad is not None] for group in run.optimizer.param_groups]
+    norm = torch.stack([nn.utils.get_total_norm(gradients) for gradients in groups]).mean()
+    nn.utils.clip_grads_with_norm_(run.parameters, MAX_NORM, norm)
""",
        },
        sources=("deepspeedai/DeepSpeed#8478",),
    ),
)
