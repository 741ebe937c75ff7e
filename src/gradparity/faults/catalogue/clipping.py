"""Faults of clipping: when it is done, and on which parameters."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train_step

CLIPPING = (
    Fault(
        name="clip-before-unscale",
        symptom="Every step is clipped, to 1/scale of the threshold; Adam hides most of it, SGD hardly moves.",
        needs="a loss scale, and a scaled norm above the threshold",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
+    run.clip(run.parameters)
     run.scaler.unscale_(run.optimizer)
     yield Moment(Phase.UNSCALED)
-    run.clip(run.parameters)
""",
        },
        sources=(
            "Lightning-AI/pytorch-lightning#18089",
            "Lightning-AI/pytorch-lightning#9599",
            "milesial/Pytorch-UNet#468",
            "harubaru/waifu-diffusion#64",
            "TorchSSL/TorchSSL#59",
            "NVIDIA/apex#1512",
        ),
    ),
    Fault(
        name="clip-without-unscale",
        symptom="Every step is clipped, to 1/scale of the threshold; Adam hides most of it, SGD hardly moves.",
        needs="a loss scale, and a scaled norm above the threshold",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.scaler.unscale_(run.optimizer)
-    yield Moment(Phase.UNSCALED)
""",
        },
        sources=(
            "Lightning-AI/pytorch-lightning#9606",
            "Lightning-AI/pytorch-lightning#19536",
        ),
    ),
    Fault(
        name="clip-every-microbatch",
        symptom="The scaled sum so far is clipped again and again: early microbatches shrink, all steps are short.",
        needs="more than one accumulation step, and a norm above the threshold",
        first=Divergence(Place(0, 1, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            train_step: """
         run.route(run.scaler.scale(loss), run.parameters)
+        run.clip(run.parameters)
@@
-    run.clip(run.parameters)
""",
        },
        sources=(
            "huggingface/transformers#986",
            "huggingface/transformers#1563",
            "facebookresearch/lingua#59",
            "huggingface/diffusers#721",
            "tenstorrent/tt-metal#17568",
        ),
    ),
    Fault(
        name="clip-per-group",
        symptom="Each parameter group has a norm of its own, so the update has another direction.",
        needs="more than one parameter group, and a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.clip(run.parameters)
+    for group in run.optimizer.param_groups:
+        run.clip(group["params"])
""",
        },
        sources=(
            "huggingface/transformers#581",
            "huggingface/transformers#614",
        ),
    ),
    Fault(
        name="clip-per-parameter",
        symptom="Each parameter has a norm of its own, so the update has another direction.",
        needs="more than one parameter, and a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.clip(run.parameters)
+    for p in run.parameters:
+        run.clip([p])
""",
        },
    ),
    Fault(
        name="clipping-missing",
        symptom="max_norm has no effect.",
        needs="a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.clip(run.parameters)
""",
        },
    ),
    Fault(
        name="clip-after-step",
        symptom="max_norm has no effect: the step was made with the gradients as they were.",
        needs="a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.clip(run.parameters)
@@
     run.scaler.step(run.optimizer)
+    run.clip(run.parameters)
""",
        },
        sources=(
            "awslabs/graphstorm#1366",
            "VGraphRNN/VGRNN#4",
            "jongwook/onsets-and-frames#24",
            "Lightning-AI/pytorch-lightning#10248",
        ),
    ),
    Fault(
        name="clip-before-backward",
        symptom="What is clipped are the gradients so far: none at first, and never the last microbatch's.",
        needs="a norm above the threshold",
        first=Divergence(Place(0, 1, Phase.ACCUMULATED), Part.GRADIENTS),
        changes={
            train_step: """
+        run.clip(run.parameters)
         run.route(run.scaler.scale(loss), run.parameters)
@@
-    run.clip(run.parameters)
""",
        },
        sources=(
            "simchowitzlabpublic/nano-world-model#22",
            "Cranial-XIX/FAMO#4",
        ),
    ),
    Fault(
        name="clip-an-exhausted-generator",
        symptom="Nothing is clipped: the generator of parameters was read before.",
        needs="a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.clip(run.parameters)
+    parameters = run.model.parameters()
+    trained = sum(p.numel() for p in parameters)
+    run.clip(parameters)
""",
        },
        sources=(
            "pytorch/pytorch#148259",
            "pytorch/torchtitan#1258",
        ),
    ),
    Fault(
        name="tied-weight-clipped-twice",
        symptom="A tied weight counts twice in the norm, and is clipped twice.",
        needs="a tied weight, and a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.clip(run.parameters)
+    run.clip([p for _, p in run.model.named_parameters(remove_duplicate=False)])
""",
        },
    ),
    Fault(
        name="only-one-group-clipped",
        symptom="The norm is that of some parameters, and only they are clipped.",
        needs="parameters that are left out, and a norm above the threshold",
        first=Divergence(Place(0, None, Phase.CLIPPED), Part.GRADIENTS),
        changes={
            train_step: """
-    run.clip(run.parameters)
+    run.clip(run.optimizer.param_groups[0]["params"])
""",
        },
        sources=(
            "Lightning-AI/pytorch-lightning#4667",
            "Lightning-AI/pytorch-lightning#5096",
            "allenai/allennlp#2312",
        ),
    ),
    Fault(
        name="clip-every-microbatch-unscaled",
        symptom="Each sum so far is clipped as if its gradients were unscaled: to the threshold times the scale.",
        needs="more than one accumulation step, and a norm above the threshold",
        first=Divergence(Place(0, None, Phase.UNSCALED), Part.GRADIENTS),
        changes={
            train_step: """
         run.route(run.scaler.scale(loss), run.parameters)
+        nn.utils.clip_grad_norm_(run.parameters, MAX_NORM * run.scaler.get_scale())
""",
        },
    ),
)
