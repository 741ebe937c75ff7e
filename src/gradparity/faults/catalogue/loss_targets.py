"""Faults of the loss: which tokens enter it, as which targets, and how sequences are weighted."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.parity.batch import summed_loss
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, windows

LOSS_TARGETS = (
    Fault(
        name="targets-shifted-twice",
        symptom="The model learns the token after the next one: data and loss both shift the targets.",
        needs="targets that are shifted already",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            summed_loss: """
-    targets = batch.targets.flatten()
+    logits, targets = logits[:, :-1], batch.targets[:, 1:].flatten()
""",
        },
        sources=(
            "huggingface/transformers#46898",
            "huggingface/transformers#47395",
            "huggingface/accelerate#4303",
        ),
    ),
    Fault(
        name="targets-not-shifted",
        symptom="The model learns to copy its input: nothing shifts the targets.",
        needs="a loss for the next token",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            summed_loss: """
-    targets = batch.targets.flatten()
+    targets = torch.where(batch.targets == PADDING, PADDING, batch.inputs).flatten()
""",
        },
        sources=("NVIDIA/Megatron-LM#5682",),
    ),
    Fault(
        name="end-of-sequence-masked",
        symptom="The model never learns to stop: the token that ends a sequence is taken for padding.",
        needs="a padding token that also ends sequences",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            summed_loss: """
-    targets = batch.targets.flatten()
+    ends = (batch.targets != PADDING).sum(-1, keepdim=True) - 1
+    targets = batch.targets.scatter(-1, ends, PADDING).flatten()
""",
            windows: """
-        normalizer = sum(map(count, group))
+        normalizer = sum(count(batch) - len(batch.targets) for batch in group)
""",
        },
        sources=(
            "huggingface/open-r1#494",
            "foundation-model-stack/fms-hf-tuning#436",
        ),
    ),
    Fault(
        name="padding-trained-on",
        symptom="The loss is low and most of it is padding, which the model learns to predict.",
        needs="padded targets",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            summed_loss: """
-    targets = batch.targets.flatten()
+    targets = batch.targets.clamp(min=0).flatten()
""",
            windows: """
-        normalizer = sum(map(count, group))
+        normalizer = sum(batch.targets.numel() for batch in group)
""",
        },
        sources=(
            "axolotl-ai-cloud/axolotl#2227",
            "open-jarvis/OpenJarvis#521",
            "DaoyuanLi2816/Molecule-Generator#20",
        ),
    ),
    Fault(
        name="softmax-before-the-loss",
        symptom="The loss has a high floor and small gradients: cross-entropy takes logits, and got probabilities.",
        needs="cross-entropy",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            summed_loss: """
-    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
+    logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)
""",
        },
        sources=("social-ai-uoft/sorrel#28",),
    ),
    Fault(
        name="first-token-of-each-sequence-counted",
        symptom="Gradients are too small: the first token of a sequence is counted, but is no target.",
        needs="targets that are shifted, and a count of those that are not",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            windows: """
-        normalizer = sum(map(count, group))
+        normalizer = sum(count(batch) + len(batch.targets) for batch in group)
""",
        },
        sources=(
            "huggingface/transformers#46204",
            "huggingface/accelerate#4303",
            "Liquid4All/liquid-finetune#40",
        ),
    ),
    Fault(
        name="mean-of-sequence-means",
        symptom="A token of a short sequence weighs more than one of a long sequence.",
        needs="sequences of different lengths",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            summed_loss: """
-    targets = batch.targets.flatten()
-    return F.cross_entropy(logits.flatten(0, -2), targets, ignore_index=PADDING, reduction="sum")
+    losses = F.cross_entropy(logits.transpose(1, 2), batch.targets, ignore_index=PADDING, reduction="none")
+    return (losses.sum(-1) / (batch.targets != PADDING).sum(-1)).sum()
""",
            windows: """
-        normalizer = sum(map(count, group))
+        normalizer = sum(len(batch.targets) for batch in group)
""",
        },
        sources=(
            "modelscope/ms-swift#10076",
            "verl-project/verl#7200",
        ),
    ),
)
