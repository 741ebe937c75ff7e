"""Faults of the autograd graph: cut where it should not be, or of a different model."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import StressModel
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train

DETACHED_GRAPH = (
    Fault(
        name="input-detached",
        symptom="What comes before gets no gradient through this block.",
        needs="nothing",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            StressModel: """
-        hidden = hidden + self.down(self.block(hidden))
+        hidden = hidden + self.down(self.block(hidden.detach()))
""",
        },
        sources=(
            "InternLM/xtuner#2048",
            "pytorch/pytorch#17124",
        ),
    ),
    Fault(
        name="block-without-grad",
        symptom="A block gets no gradient: it was run without autograd.",
        needs="nothing",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            StressModel: """
-        hidden = hidden + self.down(self.block(hidden))
+        with torch.no_grad():
+            active = self.block(hidden)
+        hidden = hidden + self.down(active)
""",
        },
    ),
    Fault(
        name="block-detached",
        symptom="A block gets no gradient: its output was detached.",
        needs="nothing",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            StressModel: """
-        hidden = hidden + self.down(self.block(hidden))
+        hidden = hidden + self.down(self.block(hidden).detach())
""",
        },
    ),
    Fault(
        name="residual-detached",
        symptom="What comes before gets its gradient through the block only.",
        needs="nothing",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            StressModel: """
-        hidden = hidden + self.down(self.block(hidden))
+        hidden = hidden.detach() + self.down(self.block(hidden))
""",
        },
    ),
    Fault(
        name="weight-without-gradient",
        symptom="A weight gets no gradient: its cast to half precision was made, and kept, without autograd.",
        needs="a custom Function, or a cached cast",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            StressModel: """
-        active: Tensor = self.dropout(F.relu(self.up(normalized)))
+        active: Tensor = self.dropout(F.relu(F.linear(normalized, self.up.weight.detach())))
""",
        },
        sources=(
            "NVIDIA/TransformerEngine#70",
            "pytorch/pytorch#112583",
            "pytorch/pytorch#65766",
            "pytorch/pytorch#165068",
            "NVIDIA/apex#132",
        ),
    ),
    Fault(
        name="one-use-of-a-tied-weight-dropped",
        symptom="A tied weight gets the gradient of one of its uses only.",
        needs="a tied weight",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            StressModel: """
-        logits: Tensor = self.head(hidden)
+        logits: Tensor = F.linear(hidden, self.head.weight.detach())
""",
        },
        sources=("pytorch/pytorch#181146",),
    ),
    Fault(
        name="weights-not-tied",
        symptom="The head has weights of its own, which start from other numbers.",
        needs="a tied weight",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            StressModel: """
-        self.head.weight = self.embedding.weight
""",
        },
        sources=(
            "rasbt/LLMs-from-scratch#822",
            "mosaicml/examples#11",
            "facebookresearch/lingua#74",
            "huggingface/transformers#18855",
        ),
    ),
    Fault(
        name="tied-weights-copied",
        symptom="The head begins as a copy of the embedding, and goes its own way.",
        needs="a tied weight",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.PARAMETERS),
        changes={
            StressModel: """
-        self.head.weight = self.embedding.weight
+        self.head.weight = nn.Parameter(self.embedding.weight.detach().clone())
""",
        },
        sources=(
            "rasbt/LLMs-from-scratch#822",
            "facebookresearch/lingua#74",
        ),
    ),
    Fault(
        name="branch-never-taken",
        symptom="A branch of the model is never trained.",
        needs="a branch",
        first=Divergence(Place(0, 1, Phase.FORWARD), Part.LOSS),
        changes={
            StressModel: """
-        if (tokens == RARE).any():
+        if False:
""",
        },
    ),
    Fault(
        name="branch-always-taken",
        symptom="A branch of the model is trained on what it is not for.",
        needs="a branch",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            StressModel: """
-        if (tokens == RARE).any():
+        if True:
""",
        },
    ),
    Fault(
        name="unused-parameters-touched-by-zero",
        symptom="Weight decay and momentum move a parameter whose gradient is zero instead of None.",
        needs="a branch that a step does not take",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            StressModel: """
-        return logits + 0.1 * F.linear(hidden, self.average)
+        return logits + 0.1 * F.linear(hidden, self.average) + 0 * self.rare.weight.sum()
""",
        },
        sources=("pytorch/pytorch#28294",),
    ),
    Fault(
        name="layer-frozen",
        symptom="A layer is not trained.",
        needs="nothing",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.MODES),
        changes={
            train: """
+    run.model.up.requires_grad_(False)
     for epoch in epochs:
""",
        },
    ),
)
