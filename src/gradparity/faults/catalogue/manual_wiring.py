"""Faults of gradients that ``autograd.grad`` returns and the loop writes to ``p.grad`` by hand."""

from gradparity.faults.fault import Divergence, Fault, FaultKind, Stop
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, manual, train_step

MANUAL_WIRING = (
    Fault(
        name="naive",
        symptom="Parameters that enter only as a sum get each other's gradient a second time; nothing raises.",
        needs="two parameters that autograd.grad returns one tensor for",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.ALIASING),
        changes={
            manual: """
-                p.grad = take(g) if alone and fits(g, p) and storage_of(g) not in taken else copy_for(g, p)
+                p.grad = g
""",
        },
        sources=(
            "pytorch/pytorch#34082",
            "torch/csrc/autograd/functions/accumulate_grad.h",
        ),
    ),
    Fault(
        name="naive-and-added-out-of-place",
        symptom="Until a second microbatch comes, parameters that enter only as a sum share one gradient.",
        needs="two parameters that autograd.grad returns one tensor for; to do harm, a window of one microbatch",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.ALIASING),
        changes={
            manual: """
-                p.grad = take(g) if alone and fits(g, p) and storage_of(g) not in taken else copy_for(g, p)
+                p.grad = g
@@
-                p.grad.add_(g)
+                p.grad = p.grad + g
""",
        },
        sources=("pytorch/pytorch#34082",),
    ),
    Fault(
        name="overwritten-instead-of-added",
        symptom="Only the last microbatch of each window counts, with older gradients where it has none.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 1, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            manual: """
-                p.grad.add_(g)
+                p.grad.copy_(g)
""",
        },
    ),
    Fault(
        name="tied-weight-listed-twice",
        symptom="The gradient of a tied weight is doubled.",
        needs="a tied weight",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
+        run.route(run.scaler.scale(loss), [p for _, p in run.model.named_parameters(remove_duplicate=False)])
""",
            manual: """
-    leaves = [p for p in dict.fromkeys(parameters) if p.requires_grad]
+    leaves = [p for p in parameters if p.requires_grad]
""",
        },
        sources=("paiml/entrenar#314",),
    ),
    Fault(
        name="unused-materialized-as-zeros",
        symptom="Weight decay and momentum move a parameter that this step did not use.",
        needs="a parameter that a step does not use",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            manual: """
-        gradients: list[Tensor | None] = list(torch.autograd.grad(loss, leaves, allow_unused=True))
+        gradients: list[Tensor | None] = list(torch.autograd.grad(loss, leaves, materialize_grads=True))
""",
        },
        sources=(
            "pytorch/pytorch#97015",
            "pytorch/pytorch#44189",
            "pytorch/pytorch#6535",
        ),
    ),
    Fault(
        name="unused-not-allowed",
        symptom="autograd.grad refuses a parameter that the loss does not reach.",
        needs="a parameter that a microbatch does not use",
        first=Stop(0, "RuntimeError"),
        changes={
            manual: """
-        gradients: list[Tensor | None] = list(torch.autograd.grad(loss, leaves, allow_unused=True))
+        gradients: list[Tensor | None] = list(torch.autograd.grad(loss, leaves))
""",
        },
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="none-dropped-before-pairing",
        symptom="After an unused parameter each gets the gradient of its neighbour, broadcast where it must be.",
        needs="a parameter that a microbatch does not use",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            manual: """
         gradients: list[Tensor | None] = list(torch.autograd.grad(loss, leaves, allow_unused=True))
+    gradients = [g for g in gradients if g is not None]
+    leaves = leaves[: len(gradients)]
""",
        },
    ),
    Fault(
        name="two-gradients-swapped",
        symptom="Two parameters of one shape get each other's gradient.",
        needs="two parameters of one shape",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            manual: """
         gradients: list[Tensor | None] = list(torch.autograd.grad(loss, leaves, allow_unused=True))
+    gradients[4], gradients[5] = gradients[5], gradients[4]
""",
        },
    ),
    Fault(
        name="gradient-in-another-dtype",
        symptom="PyTorch refuses a gradient in another dtype than its parameter's.",
        needs="nothing",
        first=Stop(0, "RuntimeError"),
        changes={
            manual: """
-                p.grad = take(g) if alone and fits(g, p) and storage_of(g) not in taken else copy_for(g, p)
+                p.grad = g.half()
""",
        },
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="static-buffer-reused",
        symptom="The gradient buffer of the previous microbatch is overwritten before it is added.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 1, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            manual: """
+                p.grad.copy_(g)
                 p.grad.add_(g)
""",
        },
        sources=(
            "NVIDIA/TransformerEngine#2937",
            "pytorch/torchtitan#4436",
        ),
    ),
)
