"""Faults of normalization: the number by which the loss of a microbatch is divided."""

from gradparity.faults.fault import Divergence, Fault, FaultKind
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train_step, windows

LOSS_NORMALIZATION = (
    Fault(
        name="mean-of-microbatch-means",
        symptom="A short microbatch weighs as much as a long one; the loss is not that of the large batch.",
        needs="other numbers of tokens in the microbatches of a window",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch) / count(microbatch) / len(window.microbatches)
""",
        },
        sources=(
            "huggingface/transformers#34191",
            "huggingface/blog#2414",
        ),
    ),
    Fault(
        name="mean-of-microbatch-means-by-full-k",
        symptom="A short microbatch weighs as much as a long one, and the last window of an epoch too little.",
        needs="other numbers of tokens in the microbatches of a window",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch) / count(microbatch) / ACCUMULATION_STEPS
""",
        },
        sources=(
            "huggingface/transformers#34191",
            "Lightning-AI/pytorch-lightning#19987",
        ),
    ),
    Fault(
        name="mean-loss-not-divided-by-k",
        symptom="Gradients are about K times too large, and clipped that much more often; Adam hides it.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch) / count(microbatch)
""",
        },
        sources=(
            "mlfoundations/open_clip#761",
            "mlfoundations/open_clip#957",
            "huggingface/transformers#37766",
            "huggingface/transformers#35438",
            "huggingface/transformers#35651",
        ),
    ),
    Fault(
        name="divided-twice",
        symptom="Gradients are K times too small; Adam hides it, SGD hardly moves, nothing is ever clipped.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch) / window.normalizer / len(window.microbatches)
""",
        },
        sources=(
            "huggingface/accelerate#3533",
            "huggingface/transformers#40052",
        ),
    ),
    Fault(
        name="divided-twice-by-full-k",
        symptom="Gradients are K times too small; Adam hides it, SGD hardly moves, nothing is ever clipped.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch) / window.normalizer / ACCUMULATION_STEPS
""",
        },
        sources=("huggingface/accelerate#3533",),
    ),
    Fault(
        name="not-divided-at-all",
        symptom="Gradients are sums: they grow with the number of tokens, and every step is clipped.",
        needs="nothing",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch)
""",
        },
    ),
    Fault(
        name="sum-divided-by-k",
        symptom="Gradients grow with the number of tokens in a microbatch, and every step is clipped.",
        needs="nothing",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch) / ACCUMULATION_STEPS
""",
        },
    ),
    Fault(
        name="sequences-counted-instead-of-tokens",
        symptom="Gradients grow with the length of the sequences; windows of long ones count more.",
        needs="sequences of more than one token",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch) / sum(len(b.targets) for b in window.microbatches)
""",
        },
        sources=("OpenNMT/OpenNMT-py#526",),
    ),
    Fault(
        name="padding-counted",
        symptom="The more padding a window has, the smaller its gradients.",
        needs="padded targets",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch) / sum(b.targets.numel() for b in window.microbatches)
""",
        },
    ),
    Fault(
        name="counted-in-the-first-microbatch-only",
        symptom="A window weighs by how short its first microbatch happens to be.",
        needs="other numbers of tokens in the microbatches of a window",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch) / (count(window.microbatches[0]) * len(window.microbatches))
""",
        },
    ),
    Fault(
        name="partial-window-divided-by-full-k",
        symptom="The last update of each epoch is too small, by the share of microbatches that it lacks.",
        needs="an epoch that is no multiple of the accumulation steps",
        first=Divergence(Place(3, 0, Phase.FORWARD), Part.LOSS),
        changes={
            windows: """
-        normalizer = sum(map(count, group))
+        normalizer = sum(map(count, group)) * accumulation_steps / len(group)
""",
        },
        sources=(
            "Lightning-AI/pytorch-lightning#19987",
            "huggingface/transformers#39659",
            "huggingface/transformers#38872",
            "modelscope/ms-swift#10084",
            "hiyouga/LlamaFactory#10705",
        ),
    ),
    Fault(
        name="divided-after-accumulation",
        symptom="None: the same mean, each gradient rounded otherwise.",
        needs="a divisor that is no power of two",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch)
@@
+    for p in run.parameters:
+        if p.grad is not None:
+            p.grad /= window.normalizer
     yield Moment(Phase.UNSCALED)
""",
        },
        sources=("NVIDIA/DeepLearningExamples#1112",),
        kind=FaultKind.ROUNDING,
    ),
    Fault(
        name="multiplied-by-the-reciprocal",
        symptom="None: the same mean, rounded otherwise.",
        needs="a divisor that is no power of two",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            loss = run.loss(run.model, microbatch) * (1 / window.normalizer)
""",
        },
        kind=FaultKind.ROUNDING,
        hidden_by_rounding=True,
    ),
    Fault(
        name="summed-loss",
        symptom="None but memory: the sum is the same, rounded otherwise, and every graph lives to the last forward.",
        needs="more than one accumulation step",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-        run.route(run.scaler.scale(loss), run.parameters)
-        yield Moment(Phase.ACCUMULATED, index)
+        total = loss if index == 0 else total + loss
+    run.route(run.scaler.scale(total), run.parameters)
+    yield Moment(Phase.ACCUMULATED, index)
""",
        },
        kind=FaultKind.ROUNDING,
    ),
    Fault(
        name="mean-then-weighted",
        symptom="None: each microbatch's mean times its share of the tokens is the same sum, rounded otherwise.",
        needs="nothing",
        first=Divergence(Place(0, 1, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            mean = run.loss(run.model, microbatch) / count(microbatch)
+            loss = mean * count(microbatch) / window.normalizer
""",
        },
        kind=FaultKind.ROUNDING,
        hidden_by_rounding=True,
    ),
    Fault(
        name="mean-then-weighted-by-the-share",
        symptom="None: each microbatch's mean times its share of the tokens is the same sum, rounded otherwise.",
        needs="nothing",
        first=Divergence(Place(0, 1, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-            loss = run.loss(run.model, microbatch) / window.normalizer
+            mean = run.loss(run.model, microbatch) / count(microbatch)
+            loss = mean * (count(microbatch) / window.normalizer)
""",
        },
        kind=FaultKind.ROUNDING,
        hidden_by_rounding=True,
    ),
)
