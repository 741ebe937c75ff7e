"""Faults of the optimizer's step: how often it runs, which state it uses, and which implementation."""

from gradparity.faults.fault import Divergence, Fault, FaultKind, Stop
from gradparity.faults.stress_scenario import StressModel, build
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train, train_step

OPTIMIZER_STEPS = (
    Fault(
        name="amsgrad-state-lost",
        symptom="The largest second moments are forgotten: amsgrad does nothing.",
        needs="amsgrad",
        first=Divergence(Place(2, None, Phase.STEPPED), Part.OPTIMIZER),
        changes={
            train_step: """
     run.scaler.step(run.optimizer)
+    for state in run.optimizer.state.values():
+        state["max_exp_avg_sq"].copy_(state["exp_avg_sq"])
""",
        },
        sources=("pytorch/pytorch#78807",),
    ),
    Fault(
        name="amsgrad-not-asked-for",
        symptom="Adam without the option that was asked for.",
        needs="amsgrad",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            build: """
-    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
+    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02)
""",
        },
    ),
    Fault(
        name="stepped-twice",
        symptom="Two updates for each window.",
        needs="nothing",
        first=Divergence(Place(1, None, Phase.UNSCALED), Part.OPTIMIZER),
        changes={
            train_step: """
     run.scaler.step(run.optimizer)
+    run.optimizer.step()
""",
        },
        sources=(
            "NVIDIA/physicsnemo#1911",
            "mzolfaghari/ECO-pytorch#1",
        ),
    ),
    Fault(
        name="scaler-stepped-twice",
        symptom="GradScaler refuses a second step before its update.",
        needs="a loss scale",
        first=Stop(1, "RuntimeError"),
        changes={
            train_step: """
     run.scaler.step(run.optimizer)
+    run.scaler.step(run.optimizer)
""",
        },
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="step-before-backward",
        symptom="The optimizer uses the gradients of the window before, and none at first.",
        needs="nothing",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.OPTIMIZER),
        changes={
            train_step: """
+    run.optimizer.step()
     run.optimizer.zero_grad(set_to_none=True)
@@
-    run.scaler.step(run.optimizer)
""",
        },
    ),
    Fault(
        name="step-counter-stands-still",
        symptom="Adam never leaves its first step: no bias correction is ever undone.",
        needs="an optimizer that counts its steps",
        first=Divergence(Place(1, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            train_step: """
     run.scaler.step(run.optimizer)
+    for state in run.optimizer.state.values():
+        state["step"].fill_(0)
""",
        },
        sources=("allenai/OLMo-core#317",),
    ),
    Fault(
        name="moments-forgotten-every-epoch",
        symptom="A new optimizer for every epoch starts without moments.",
        needs="an optimizer with moments, and a next epoch",
        first=Divergence(Place(4, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            train: """
+        run.optimizer.state.clear()
         save(run, checkpoint, epoch + 1)
""",
        },
    ),
    Fault(
        name="moments-forgotten-every-step",
        symptom="A new optimizer for every step: Adam becomes the sign of the gradient.",
        needs="an optimizer with moments",
        first=Divergence(Place(1, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            train_step: """
+    run.optimizer.state.clear()
     run.optimizer.zero_grad(set_to_none=True)
""",
        },
    ),
    Fault(
        name="fused-optimizer",
        symptom="None: the same updates, rounded otherwise.",
        needs="nothing",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            build: """
-    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
+    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True, fused=True)
""",
        },
        sources=("kozistr/pytorch_optimizer#519",),
        kind=FaultKind.ROUNDING,
    ),
    Fault(
        name="foreach-optimizer",
        symptom="None: on one device the same updates, in the same bits.",
        needs="nothing",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            build: """
-    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
+    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True, foreach=True)
""",
        },
        sources=("kozistr/pytorch_optimizer#519",),
        kind=FaultKind.ROUNDING,
    ),
    Fault(
        name="sparse-gradient",
        symptom="Tied to a dense head it only adds in another order; alone, clipping and Adam would refuse it.",
        needs="an embedding with sparse=True",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            StressModel: """
-        self.embedding = nn.Embedding(TOKENS, WIDTH)
+        self.embedding = nn.Embedding(TOKENS, WIDTH, sparse=True)
""",
        },
        sources=(
            "pytorch/pytorch#35810",
            "pytorch/pytorch#1305",
        ),
        kind=FaultKind.ROUNDING,
    ),
)
