"""Faults of grouping: which microbatches form a step."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import reference
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train, train_step, windows

ACCUMULATION_WINDOWS = (
    Fault(
        name="last-window-dropped",
        symptom="The microbatches that do not fill a window are never trained on.",
        needs="an epoch that is no multiple of the accumulation steps",
        first=Divergence(Place(3, 0, Phase.FORWARD), Part.LOSS),
        changes={
            windows: """
-    while group := tuple(islice(remaining, accumulation_steps)):
+    while len(group := tuple(islice(remaining, accumulation_steps))) == accumulation_steps:
""",
        },
        sources=(
            "tracel-ai/burn#5695",
            "ultralytics/ultralytics#11217",
        ),
    ),
    Fault(
        name="last-window-never-stepped",
        symptom="The gradients of the microbatches that do not fill a window are computed, and thrown away.",
        needs="an epoch that is no multiple of the accumulation steps",
        first=Divergence(Place(3, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
+    if len(window.microbatches) < ACCUMULATION_STEPS:
+        return
     run.scaler.unscale_(run.optimizer)
""",
        },
        sources=(
            "tracel-ai/burn#5695",
            "ultralytics/ultralytics#11217",
        ),
    ),
    Fault(
        name="last-window-carried-over",
        symptom="Gradients of an epoch's last microbatches are added to the first window of the next one.",
        needs="an epoch that is no multiple of the accumulation steps, and a next epoch",
        first=Divergence(Place(3, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.optimizer.zero_grad(set_to_none=True)
@@
+    if len(window.microbatches) < ACCUMULATION_STEPS:
+        return
     run.scaler.unscale_(run.optimizer)
@@
+    run.optimizer.zero_grad(set_to_none=True)
     yield Moment(Phase.STEPPED)
""",
        },
        sources=(
            "huggingface/transformers#23935",
            "huggingface/transformers#24840",
        ),
    ),
    Fault(
        name="windows-run-across-epochs",
        symptom="Windows are cut without regard to epochs: a step mixes the end of one with the start of the next.",
        needs="an epoch that is no multiple of the accumulation steps, and a next epoch",
        first=Divergence(Place(3, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train: """
-    for epoch in epochs:
-        set_epoch(batches, epoch)
-        for window in windows(batches, accumulation_steps, count):
-            take_step(run, window)
-        validation_losses.append(validate(run, held_out, count))
-        save(run, checkpoint, epoch + 1)
+    for window in windows((batch for _ in epochs for batch in batches), accumulation_steps, count):
+        take_step(run, window)
""",
            reference: """
-    epochs(epochs=range(1))
-    plan.restart()
-    resume(run, plan.checkpoint)
-    epochs(epochs=range(1, plan.epochs))
+    epochs(epochs=range(plan.epochs))
""",
        },
        sources=(
            "huggingface/transformers#23935",
            "huggingface/transformers#24840",
        ),
    ),
    Fault(
        name="steps-after-the-first-microbatch",
        symptom="The first window of each epoch has one microbatch, and all others are cut one too early.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            windows: """
     remaining = iter(microbatches)
-    while group := tuple(islice(remaining, accumulation_steps)):
+    sizes = itertools.chain([1], itertools.repeat(accumulation_steps))
+    while group := tuple(islice(remaining, next(sizes))):
""",
        },
        sources=("EvolvingLMMs-Lab/OneVision-Encoder#82",),
    ),
    Fault(
        name="steps-every-microbatch",
        symptom="No accumulation at all.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            windows: """
-    while group := tuple(islice(remaining, accumulation_steps)):
+    while group := tuple(islice(remaining, 1)):
""",
        },
    ),
    Fault(
        name="accumulates-2-instead-of-3",
        symptom="A step every 2 microbatches, where 3 were asked for.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            windows: """
-    while group := tuple(islice(remaining, accumulation_steps)):
+    while group := tuple(islice(remaining, 2)):
""",
        },
    ),
    Fault(
        name="accumulates-4-instead-of-3",
        symptom="A step every 4 microbatches, where 3 were asked for.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            windows: """
-    while group := tuple(islice(remaining, accumulation_steps)):
+    while group := tuple(islice(remaining, 4)):
""",
        },
    ),
    Fault(
        name="last-microbatch-of-each-window-lost",
        symptom="One microbatch in each window is never trained on.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            windows: """
-        yield Window(group, normalizer)
+        yield Window(group[:-1] or group, normalizer)
""",
        },
    ),
    Fault(
        name="first-microbatch-again-and-again",
        symptom="The model is trained on one microbatch only, and learns it by heart.",
        needs="nothing",
        first=Divergence(Place(0, 1, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
+        microbatch = window.microbatches[0]
         with run.autocast():
             loss = run.loss(run.model, microbatch) / window.normalizer
""",
        },
    ),
    Fault(
        name="one-epoch-missing",
        symptom="Training ends an epoch early.",
        needs="more than one epoch",
        first=Divergence(Place(4, None, Phase.UNSCALED), Part.OPTIMIZER),
        changes={
            reference: """
-    epochs(epochs=range(1, plan.epochs))
+    epochs(epochs=range(1, plan.epochs - 1))
""",
        },
    ),
    Fault(
        name="first-microbatch-consumed",
        symptom="The first microbatch is read to see its shape or keys, and never trained on.",
        needs="an iterator that is read before training",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            reference: """
-    epochs(epochs=range(1))
+    train(run, batches[1:], plan.held_out, **epochs.keywords, epochs=range(1))
""",
        },
        sources=("deepmodeling/deepmd-kit#4795",),
    ),
)
