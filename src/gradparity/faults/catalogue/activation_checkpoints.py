"""Faults of activation checkpointing: the forward is recomputed, but not in the same way."""

from gradparity.faults.fault import Divergence, Fault, FaultKind, Stop
from gradparity.faults.stress_scenario import StressModel
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, manual

ACTIVATION_CHECKPOINTS = (
    Fault(
        name="recomputed-batchnorm-moves-twice",
        symptom="Gradients are the same, but BatchNorm counts every batch twice.",
        needs="BatchNorm in a block that is checkpointed",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.BUFFERS),
        changes={
            StressModel: """
-        hidden = hidden + self.down(self.block(hidden))
+        hidden = hidden + self.down(torch.utils.checkpoint.checkpoint(self.block, hidden, use_reentrant=False))
""",
        },
        sources=(
            "pytorch/pytorch#96136",
            "pytorch/pytorch#62471",
            "facebookresearch/fairscale#1035",
            "Tencent/YOLO-Master#262",
        ),
    ),
    Fault(
        name="recomputed-with-other-dropout",
        symptom="The gradient is that of another dropout mask than the loss.",
        needs="dropout in a block that is checkpointed",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            StressModel: """
-        hidden = hidden + self.down(self.block(hidden))
+        options = {"use_reentrant": False, "preserve_rng_state": False}
+        hidden = hidden + self.down(torch.utils.checkpoint.checkpoint(self.block, hidden, **options))
""",
        },
        sources=(
            "allenai/OLMo-core#828",
            "allenai/OLMo#702",
            "openai/guided-diffusion#167",
            "ankanbhunia/PIDM#66",
            "pytorch/pytorch#190717",
        ),
    ),
    Fault(
        name="recomputed-outside-autocast",
        symptom="The recomputed forward has another precision, which PyTorch's checkpoint notices.",
        needs="autocast, and a block that is checkpointed",
        first=Stop(0, "CheckpointError"),
        changes={
            StressModel: """
-        hidden = hidden + self.down(self.block(hidden))
+        contexts = contextlib.nullcontext(), torch.autocast("cpu", enabled=False)
+        options = {"use_reentrant": False, "context_fn": lambda: contexts}
+        hidden = hidden + self.down(torch.utils.checkpoint.checkpoint(self.block, hidden, **options))
""",
        },
        sources=(
            "pytorch/pytorch#71169",
            "NVIDIA/TransformerEngine#787",
            "facebookresearch/fairscale#1199",
            "lightonai/pylate#242",
        ),
        kind=FaultKind.RAISES,
    ),
    Fault(
        name="reentrant-checkpoint-without-gradient-at-its-input",
        symptom="A whole block gets no gradient; PyTorch only warns.",
        needs="a checkpointed block whose input needs no gradient, as after a frozen layer",
        first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            StressModel: """
-        hidden = hidden + 0.02 * self.measured(self.measurements(tokens)) + 32 * self.shift[0]
+        measured = torch.utils.checkpoint.checkpoint(self.measured, self.measurements(tokens), use_reentrant=True)
+        hidden = hidden + 0.02 * measured + 32 * self.shift[0]
""",
        },
        sources=(
            "huggingface/transformers#21381",
            "huggingface/transformers#26221",
            "mlfoundations/open_clip#573",
            "InternLM/xtuner#2048",
        ),
    ),
    Fault(
        name="reentrant-checkpoint-and-autograd-grad",
        symptom="autograd.grad does not reach into a reentrant checkpoint: it raises, or finds nothing.",
        needs="a reentrant checkpoint",
        first=Stop(0, "RuntimeError"),
        changes={
            StressModel: """
-        hidden = hidden + self.down(self.block(hidden))
+        hidden = hidden + self.down(torch.utils.checkpoint.checkpoint(self.block, hidden, use_reentrant=True))
""",
            manual: """
-        gradients: list[Tensor | None] = list(torch.autograd.grad(loss, leaves, allow_unused=True))
+        gradients: list[Tensor | None] = list(torch.autograd.grad(loss, tuple(leaves), allow_unused=True))
""",
        },
        sources=(
            "pytorch/pytorch#51743",
            "pytorch/pytorch#69508",
            "pytorch/pytorch#102223",
            "pytorch/xla#8729",
        ),
        kind=FaultKind.RAISES,
    ),
)
