"""Faults of ``.backward()``: which loss is differentiated, and how often."""

from gradparity.faults.fault import Divergence, Fault, FaultKind, Stop
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train_step

BACKWARD = (
    Fault(
        name="differentiated-twice",
        symptom="Gradients are doubled: a framework's backward and one's own.",
        needs="nothing",
        first=Divergence(Place(0, 1, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
+        run.scaler.scale(loss).backward(retain_graph=True)
         run.route(run.scaler.scale(loss), run.parameters)
""",
        },
        sources=("Lightning-AI/pytorch-lightning#4188",),
    ),
    Fault(
        name="running-total-differentiated",
        symptom="The graph of the first microbatch is gone when the second one needs it.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 1, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
+        total = loss if index == 0 else total + loss
+        run.route(run.scaler.scale(total), run.parameters)
""",
        },
        sources=(
            "OpenNMT/OpenNMT-py#403",
            "Lightning-AI/pytorch-lightning#8145",
        ),
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="running-total-differentiated-with-its-graph-kept",
        symptom="Early microbatches count once for each microbatch after them; retain_graph silenced the error.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 1, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
+        total = loss if index == 0 else total + loss
+        run.scaler.scale(total).backward(retain_graph=True)
""",
        },
        sources=(
            "OpenNMT/OpenNMT-py#403",
            "Lightning-AI/pytorch-lightning#8145",
        ),
    ),
    Fault(
        name="step-between-two-backwards",
        symptom="A weight that the graph still needs has been updated in place.",
        needs="two losses that share a graph",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.OPTIMIZER),
        changes={
            train_step: """
+        run.scaler.scale(loss).backward(retain_graph=True)
+        run.optimizer.step()
         run.route(run.scaler.scale(loss), run.parameters)
""",
        },
        sources=(
            "pytorch/pytorch#39141",
            "knazeri/edge-connect#152",
            "juliusfrost/dreamer-pytorch#66",
        ),
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="only-the-last-microbatch-differentiated",
        symptom="Only the last microbatch of each window counts.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
+        if index + 1 == len(window.microbatches):
+            run.route(run.scaler.scale(loss), run.parameters)
""",
        },
    ),
    Fault(
        name="gradient-ascent",
        symptom="The loss rises.",
        needs="nothing",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
+        run.route(run.scaler.scale(-loss), run.parameters)
""",
        },
    ),
    Fault(
        name="loss-detached",
        symptom="There is no graph to go back through.",
        needs="nothing",
        first=Stop(0, "RuntimeError"),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
+        run.route(run.scaler.scale(loss.detach()), run.parameters)
""",
        },
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="loss-squared",
        symptom="Each gradient is multiplied by twice its loss.",
        needs="nothing",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
+        run.route(run.scaler.scale(loss * loss), run.parameters)
""",
        },
    ),
)
