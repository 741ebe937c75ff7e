"""Faults of resuming from a checkpoint."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import reference
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, resume

RESUME = (
    Fault(
        name="model-not-restored",
        symptom="Training starts anew from the initial weights.",
        needs="a resume",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            resume: """
-    run.model.load_state_dict(state["model"])
""",
        },
    ),
    Fault(
        name="optimizer-not-restored",
        symptom="A spike after the resume: no moments, and the first learning rate.",
        needs="a resume",
        first=Divergence(Place(4, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            resume: """
-    load_optimizer(run.optimizer, state["optimizer"])
""",
        },
        sources=(
            "NVlabs/stylegan2-ada-pytorch#108",
            "EvolvingLMMs-Lab/OneVision-Encoder#65",
        ),
    ),
    Fault(
        name="moments-not-restored",
        symptom="A spike after the resume: the learning rate is right, the moments are gone.",
        needs="a resume",
        first=Divergence(Place(4, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            resume: """
     load_optimizer(run.optimizer, state["optimizer"])
+    run.optimizer.state.clear()
""",
        },
        sources=("NVlabs/stylegan2-ada-pytorch#108",),
    ),
    Fault(
        name="scheduler-not-restored",
        symptom="The schedule starts anew after the resume.",
        needs="a resume",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.SCHEDULER),
        changes={
            resume: """
-    run.scheduler.load_state_dict(state["scheduler"])
""",
        },
        sources=("PolymathicAI/the_well#77",),
    ),
    Fault(
        name="scaler-not-restored",
        symptom="The loss scale starts anew after the resume.",
        needs="a resume, and a loss scale",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.SCALER),
        changes={
            resume: """
-    run.scaler.load_state_dict(state["scaler"])
""",
        },
        sources=("PolymathicAI/the_well#77",),
    ),
    Fault(
        name="random-numbers-not-restored",
        symptom="The masks of the first epoch are drawn again after the resume.",
        needs="a resume, and random numbers",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            resume: """
-    restore_random(state["random"])
""",
        },
        sources=(
            "PaddlePaddle/PaddleNLP#8185",
            "huggingface/accelerate#4308",
        ),
    ),
    Fault(
        name="buffers-not-restored",
        symptom="BatchNorm starts anew after the resume: only parameters were kept.",
        needs="a resume, and buffers",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            resume: """
-    run.model.load_state_dict(state["model"])
+    trained = {name for name, _ in run.model.named_parameters()}
+    weights = {name: value for name, value in state["model"].items() if name in trained}
+    run.model.load_state_dict(weights, strict=False)
""",
        },
    ),
    Fault(
        name="moments-restored-to-other-parameters",
        symptom="After the resume two parameters of one shape have each other's moments.",
        needs="a resume, and another order of the parameters",
        first=Divergence(Place(4, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            resume: """
+    moments = state["optimizer"]["state"]
+    moments[4], moments[5] = moments[5], moments[4]
     load_optimizer(run.optimizer, state["optimizer"])
""",
        },
        sources=(
            "pytorch/pytorch#1489",
            "pytorch/pytorch#6031",
            "piergiaj/pytorch-i3d#38",
        ),
    ),
    Fault(
        name="step-counters-in-low-precision",
        symptom="The counters are bf16 after the resume: at 256 they stop, and with them the bias correction.",
        needs="a resume, and an optimizer that counts its steps",
        first=Divergence(Place(4, None, Phase.STEPPED), Part.OPTIMIZER),
        changes={
            resume: """
     load_optimizer(run.optimizer, state["optimizer"])
+    for kept in run.optimizer.state.values():
+        kept["step"] = kept["step"].bfloat16()
""",
        },
        sources=(
            "pytorch/pytorch#75214",
            "pytorch/pytorch#74424",
            "vllm-project/speculators#411",
        ),
    ),
    Fault(
        name="learning-rate-reset-by-hand",
        symptom="The learning rate jumps to its peak for the first step after the resume.",
        needs="a resume",
        first=Divergence(Place(4, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            resume: """
     run.scheduler.load_state_dict(state["scheduler"])
+    for group in run.optimizer.param_groups:
+        group["lr"] = group["initial_lr"]
""",
        },
    ),
    Fault(
        name="epoch-repeated-after-the-resume",
        symptom="The epoch that the checkpoint ends is trained again.",
        needs="a resume",
        first=Divergence(Place(8, None, Phase.UNSCALED), Part.OPTIMIZER),
        changes={
            reference: """
-    epochs(epochs=range(1, plan.epochs))
+    epochs(epochs=range(plan.epochs))
""",
        },
    ),
    Fault(
        name="weights-rounded-in-the-checkpoint",
        symptom="The weights lose digits at each resume.",
        needs="a resume",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            resume: """
     run.model.load_state_dict(state["model"])
+    for p in run.parameters:
+        p.data.copy_(p.data.half())
""",
        },
    ),
)
