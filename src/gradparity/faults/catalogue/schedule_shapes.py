"""Faults of the shape of the schedule: where it begins and ends, how long it is, and for which parameters."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import build
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, warmup_cosine

SCHEDULE_SHAPES = (
    Fault(
        name="warm-up-from-zero",
        symptom="The first step changes nothing: its learning rate is 0.",
        needs="a warm-up",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            warmup_cosine: """
-            return (step + 1) / (warmup_steps + 1)
+            return step / warmup_steps
""",
        },
        sources=(
            "EleutherAI/gpt-neox#1373",
            "EleutherAI/gpt-neox#1379",
            "karpathy/nanoGPT#578",
            "verl-project/verl#3674",
        ),
    ),
    Fault(
        name="warm-up-times-k",
        symptom="The warm-up is K times too long: it was planned in microbatches, and advances once a step.",
        needs="a warm-up, and more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            build: """
-    scheduler = warmup_cosine(optimizer, warmup_steps=2, total_steps=EPOCHS * -(-MICROBATCHES // ACCUMULATION_STEPS))
+    steps = EPOCHS * -(-MICROBATCHES // ACCUMULATION_STEPS)
+    scheduler = warmup_cosine(optimizer, warmup_steps=2 * ACCUMULATION_STEPS, total_steps=steps)
""",
        },
        sources=("huggingface/diffusers#9633",),
    ),
    Fault(
        name="schedule-planned-without-partial-windows",
        symptom="The schedule ends before the training does: each epoch has a step more than was planned.",
        needs="an epoch that is no multiple of the accumulation steps",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            build: """
-    scheduler = warmup_cosine(optimizer, warmup_steps=2, total_steps=EPOCHS * -(-MICROBATCHES // ACCUMULATION_STEPS))
+    scheduler = warmup_cosine(optimizer, warmup_steps=2, total_steps=EPOCHS * (MICROBATCHES // ACCUMULATION_STEPS))
""",
        },
        sources=("natolambert/rlhf-book#354",),
    ),
    Fault(
        name="minimum-learning-rate-ignored",
        symptom="The learning rate falls to 0 instead of to a tenth of its peak.",
        needs="a schedule with a minimum",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            warmup_cosine: """
-        return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
+        return 0.5 * (1 + math.cos(math.pi * progress))
""",
        },
        sources=("verl-project/verl#1400",),
    ),
    Fault(
        name="learning-rate-constant-after-the-warm-up",
        symptom="The learning rate stays at its peak: only the warm-up is applied.",
        needs="a schedule that falls after the warm-up",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            warmup_cosine: """
-        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
-        return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))
+        return 1.0
""",
        },
        sources=("tier4/Diffusion-Planner#293",),
    ),
    Fault(
        name="only-one-group-scheduled",
        symptom="The learning rate of the other group stays at its peak.",
        needs="more than one parameter group, or optimizer",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            warmup_cosine: """
-    return LambdaLR(optimizer, factor)
+    return LambdaLR(optimizer, [factor, *(lambda step: 1.0 for _ in optimizer.param_groups[1:])])
""",
        },
        sources=(
            "tenstorrent/tt-metal#56027",
            "EleutherAI/sparsify#62",
        ),
    ),
)
