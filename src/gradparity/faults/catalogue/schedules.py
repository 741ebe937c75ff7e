"""Faults of the learning rate schedule."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import build
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train, train_step

SCHEDULES = (
    Fault(
        name="schedule-advanced-on-skipped-steps",
        symptom="Warm-up is shortened by each overflow.",
        needs="an overflow",
        first=Divergence(Place(3, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            train_step: """
-    if run.scaler.get_scale() >= scale > 1e-38:
-        run.scheduler.step()
+    run.scheduler.step()
""",
        },
        sources=(
            "Lightning-AI/pytorch-lightning#18828",
            "pytorch/pytorch#55585",
            "pytorch/pytorch#67590",
            "NVIDIA-NeMo/Speech#3293",
            "huggingface/transformers#11144",
        ),
    ),
    Fault(
        name="schedule-advanced-every-microbatch",
        symptom="The schedule runs K times too fast.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            train_step: """
-    if run.scaler.get_scale() >= scale > 1e-38:
-        run.scheduler.step()
@@
         run.route(run.scaler.scale(loss), run.parameters)
+        run.scheduler.step()
""",
        },
        sources=(
            "Lightning-AI/pytorch-lightning#1476",
            "huggingface/accelerate#963",
            "huggingface/accelerate#499",
            "starVLA/starVLA#210",
            "EvolvingLMMs-Lab/OneVision-Encoder#82",
        ),
    ),
    Fault(
        name="schedule-advanced-once-an-epoch",
        symptom="The schedule hardly moves.",
        needs="more than one step in an epoch",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            train_step: """
-    if run.scaler.get_scale() >= scale > 1e-38:
-        run.scheduler.step()
""",
            train: """
+        run.scheduler.step()
         save(run, checkpoint, epoch + 1)
""",
        },
    ),
    Fault(
        name="schedule-advanced-once-an-epoch-after-the-checkpoint",
        symptom="The schedule hardly moves, and its last step is not in the checkpoint.",
        needs="more than one step in an epoch",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            train_step: """
-    if run.scaler.get_scale() >= scale > 1e-38:
-        run.scheduler.step()
""",
            train: """
         save(run, checkpoint, epoch + 1)
+        run.scheduler.step()
""",
        },
    ),
    Fault(
        name="schedule-never-advanced",
        symptom="The learning rate stays where warm-up begins.",
        needs="a learning rate that changes",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            train_step: """
-    if run.scaler.get_scale() >= scale > 1e-38:
-        run.scheduler.step()
""",
        },
    ),
    Fault(
        name="schedule-advanced-twice",
        symptom="The schedule runs twice as fast.",
        needs="a learning rate that changes",
        first=Divergence(Place(1, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            train_step: """
     if run.scaler.get_scale() >= scale > 1e-38:
         run.scheduler.step()
+        run.scheduler.step()
""",
        },
    ),
    Fault(
        name="schedule-advanced-before-the-optimizer",
        symptom="The first learning rate is never used, and all others come a step early.",
        needs="a learning rate that changes",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            train_step: """
-    if run.scaler.get_scale() >= scale > 1e-38:
-        run.scheduler.step()
@@
+    run.scheduler.step()
     scale = run.scaler.get_scale()
""",
        },
        sources=("pytorch/pytorch#20124",),
    ),
    Fault(
        name="schedule-advanced-an-extra-time-each-epoch",
        symptom="Each epoch ends with one step of the schedule too many.",
        needs="a learning rate that changes",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            train: """
+        run.scheduler.step()
         save(run, checkpoint, epoch + 1)
""",
        },
    ),
    Fault(
        name="schedule-starts-anew-every-epoch",
        symptom="Each epoch begins with a warm-up.",
        needs="a next epoch",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            train: """
     for epoch in epochs:
+        run.scheduler.last_epoch = 0
""",
        },
    ),
    Fault(
        name="schedule-planned-for-microbatches",
        symptom="The schedule is planned for as many steps as there are microbatches, and ends early on it.",
        needs="more than one accumulation step",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            build: """
-    scheduler = warmup_cosine(optimizer, warmup_steps=2, total_steps=EPOCHS * -(-MICROBATCHES // ACCUMULATION_STEPS))
+    scheduler = warmup_cosine(optimizer, warmup_steps=2, total_steps=EPOCHS * MICROBATCHES)
""",
        },
    ),
    Fault(
        name="warm-up-missing",
        symptom="The first steps are made with the full learning rate.",
        needs="a warm-up",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            build: """
-    scheduler = warmup_cosine(optimizer, warmup_steps=2, total_steps=EPOCHS * -(-MICROBATCHES // ACCUMULATION_STEPS))
+    scheduler = warmup_cosine(optimizer, warmup_steps=0, total_steps=EPOCHS * -(-MICROBATCHES // ACCUMULATION_STEPS))
""",
        },
    ),
    Fault(
        name="learning-rate-times-k",
        symptom="The learning rate was scaled with the accumulation steps.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            build: """
-    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
+    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02 * ACCUMULATION_STEPS, amsgrad=True)
""",
        },
    ),
)
