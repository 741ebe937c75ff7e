"""Faults of the loss scaler: how an overflow is handled, and when the scale changes."""

from gradparity.faults.fault import Divergence, Fault, FaultKind, Stop
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train, train_step

SCALER_UPDATES = (
    Fault(
        name="optimizer-stepped-past-the-scaler",
        symptom="A step with an overflow is made, and the weights become NaN.",
        needs="an overflow",
        first=Divergence(Place(2, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            train_step: """
-    run.scaler.step(run.optimizer)
+    run.optimizer.step()
""",
        },
        sources=(
            "pytorch/pytorch#95847",
            "pytorch/pytorch#95781",
        ),
    ),
    Fault(
        name="overflow-looked-for-in-some-parameters-only",
        symptom="Weights whose gradients nobody looks at become NaN, and the scale goes on growing.",
        needs="an overflow in just these parameters",
        first=Divergence(Place(2, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            train_step: """
     run.scaler.unscale_(run.optimizer)
+    checked = run.optimizer.param_groups[1]["params"]
+    overflow = not all(p.grad.isfinite().all() for p in checked if p.grad is not None)
+    if run.scaler.is_enabled():
+        run.scaler._found_inf_per_device(run.optimizer)[torch.device("cpu")].fill_(overflow)
""",
        },
        sources=(
            "facebookresearch/fairscale#179",
            "facebookresearch/fairscale#180",
            "pytorch/pytorch#115710",
        ),
    ),
    Fault(
        name="overflow-replaced-by-zero",
        symptom="A step with an overflow is made from what is left of it.",
        needs="an overflow",
        first=Divergence(Place(2, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
+    for p in run.parameters:
+        if p.grad is not None:
+            torch.nan_to_num_(p.grad, nan=0.0, posinf=0.0, neginf=0.0)
     run.scaler.unscale_(run.optimizer)
""",
        },
        sources=("mlnomadpy/flaxchat#6",),
    ),
    Fault(
        name="update-missing",
        symptom="The scale never changes; the next unscale_ raises.",
        needs="a loss scale, and more than one step",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.SCALER),
        changes={
            train_step: """
-    run.scaler.update()
""",
        },
        sources=("Haian-Jin/LVSM#19",),
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="large-gradients-skipped-without-update",
        symptom="A step is left out because its norm is large, and the next unscale_ raises.",
        needs="a loss scale, and a norm that is held for too large",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            train_step: """
+    if nn.utils.get_total_norm([p.grad for p in run.parameters if p.grad is not None]) > 0.9 * MAX_NORM:
+        return
     scale = run.scaler.get_scale()
""",
        },
        sources=("Haian-Jin/LVSM#19",),
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="update-every-microbatch",
        symptom="GradScaler complains that nothing was unscaled before the update.",
        needs="a loss scale",
        first=Stop(0, "AssertionError"),
        changes={
            train_step: """
         run.route(run.scaler.scale(loss), run.parameters)
+        run.scaler.update()
""",
        },
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="update-before-step",
        symptom="GradScaler forgets the overflow that it has just found, and steps over it.",
        needs="an overflow",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.OPTIMIZER),
        changes={
            train_step: """
-    run.scaler.step(run.optimizer)
+    run.scaler.update()
@@
-    run.scaler.update()
+    run.scaler.step(run.optimizer)
""",
        },
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="scale-starts-anew-every-epoch",
        symptom="A new GradScaler for every epoch forgets the scale that was found.",
        needs="a loss scale that has changed, and a next epoch",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.SCALER),
        changes={
            train: """
+        if run.scaler.is_enabled():
+            run.scaler.load_state_dict({**run.scaler.state_dict(), "scale": INIT_SCALE, "_growth_tracker": 0})
         save(run, checkpoint, epoch + 1)
""",
        },
    ),
    Fault(
        name="closure-handed-to-the-scaler",
        symptom="GradScaler.step takes no closure.",
        needs="a loss scale",
        first=Stop(0, "RuntimeError"),
        changes={
            train_step: """
-    run.scaler.step(run.optimizer)
+    run.scaler.step(run.optimizer, closure=lambda: loss)
""",
        },
        sources=(
            "pfnet/pytorch-pfn-extras#636",
            "skorch-dev/skorch#826",
            "davda54/sam#97",
        ),
        kind=FaultKind.RAISES,
    ),
)
