"""Faults of a moving average of the weights."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import StressModel, build
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train, train_step

WEIGHT_AVERAGES = (
    Fault(
        name="average-follows-every-microbatch",
        symptom="The moving average forgets K times too fast.",
        needs="more than one accumulation step, and a moving average",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.LOSS),
        changes={
            build: """
-    optimizer.register_step_post_hook(lambda *_: model.follow())
""",
            train_step: """
         run.route(run.scaler.scale(loss), run.parameters)
+        run.model.follow()
""",
        },
        sources=(
            "SWivid/F5-TTS#631",
            "lightly-ai/lightly-train#968",
        ),
    ),
    Fault(
        name="average-follows-inside-the-window",
        symptom="Later microbatches of a window see another teacher than the first one does.",
        needs="more than one accumulation step, and a moving average in the loss",
        first=Divergence(Place(1, 1, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
         run.route(run.scaler.scale(loss), run.parameters)
+        run.model.follow()
""",
        },
        sources=("lightly-ai/lightly-train#968",),
    ),
    Fault(
        name="average-follows-skipped-steps",
        symptom="The moving average moves when nothing was trained.",
        needs="an overflow, and a moving average",
        first=Divergence(Place(3, 0, Phase.FORWARD), Part.LOSS),
        changes={
            build: """
-    optimizer.register_step_post_hook(lambda *_: model.follow())
""",
            train_step: """
+    run.model.follow()
     run.scaler.update()
""",
        },
    ),
    Fault(
        name="average-never-follows",
        symptom="The moving average stays where it began.",
        needs="a moving average",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.LOSS),
        changes={
            build: """
-    optimizer.register_step_post_hook(lambda *_: model.follow())
""",
        },
    ),
    Fault(
        name="averaged-weights-swapped-in-for-good",
        symptom="Training goes on from the averaged weights, which were meant for validation.",
        needs="a moving average, and a validation",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train: """
+        run.model.embedding.weight.data.copy_(run.model.average)
         save(run, checkpoint, epoch + 1)
""",
        },
        sources=("atomistic-machine-learning/schnetpack#785",),
    ),
    Fault(
        name="average-moves-away",
        symptom="The moving average is pushed away from the weights, and grows without bound.",
        needs="a moving average",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.LOSS),
        changes={
            StressModel: """
-        self.average.lerp_(self.embedding.weight, 0.1)
+        self.average.lerp_(self.embedding.weight, -0.1)
""",
        },
        sources=("ostris/ai-toolkit#1034",),
    ),
    Fault(
        name="average-decay-ignored",
        symptom="The moving average has a decay of 0.999, a common default, instead of the one that was asked for.",
        needs="a moving average",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.LOSS),
        changes={
            StressModel: """
-        self.average.lerp_(self.embedding.weight, 0.1)
+        self.average.lerp_(self.embedding.weight, 0.001)
""",
        },
        sources=(
            "roboflow/rf-detr#59",
            "Peterande/D-FINE#331",
        ),
    ),
    Fault(
        name="average-in-half-precision",
        symptom="The moving average moves in jumps, or not at all: bf16 rounds its small steps away.",
        needs="a moving average",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.LOSS),
        changes={
            StressModel: """
         self.average.lerp_(self.embedding.weight, 0.1)
+        self.average.copy_(self.average.bfloat16())
""",
        },
        sources=("AndreasBergmeister/ram#6",),
    ),
)
