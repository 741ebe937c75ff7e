"""Faults of resuming: which microbatch comes next, and state that is restored and then changed."""

from gradparity.faults.fault import Divergence, Fault
from gradparity.faults.stress_scenario import reference
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, resume

RESUMED_DATA_AND_STATE = (
    Fault(
        name="microbatch-repeated-after-the-resume",
        symptom="The last microbatch before the checkpoint is trained on again, and all windows are cut one later.",
        needs="a resume",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            reference: """
-    epochs(epochs=range(1, plan.epochs))
+    train(run, [batches[-1], *batches], plan.held_out, **epochs.keywords, epochs=range(1, plan.epochs))
""",
        },
        sources=("huggingface/accelerate#3952",),
    ),
    Fault(
        name="microbatch-lost-after-the-resume",
        symptom="A microbatch that was prefetched before the checkpoint is never trained on.",
        needs="a resume",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            reference: """
-    epochs(epochs=range(1, plan.epochs))
+    train(run, batches[1:], plan.held_out, **epochs.keywords, epochs=range(1, plan.epochs))
""",
        },
        sources=("huggingface/accelerate#4244",),
    ),
    Fault(
        name="step-repeated-after-the-resume",
        symptom="The last window before the checkpoint makes a second update.",
        needs="a resume",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            reference: """
     resume(run, plan.checkpoint)
+    take_step(run, list(windows(batches, plan.accumulation_steps, plan.count))[-1])
""",
        },
        sources=(
            "thinking-machines-lab/tinker-cookbook#935",
            "NVIDIA/Model-Optimizer#1469",
        ),
    ),
    Fault(
        name="reseeded-after-the-resume",
        symptom="Random numbers are restored, and then seeded anew: every resume draws the same masks.",
        needs="a resume, and random numbers",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            resume: """
     restore_random(state["random"])
+    torch.manual_seed(0)
""",
        },
        sources=("modelscope/ms-swift#9935",),
    ),
    Fault(
        name="first-learning-rate-again-after-the-resume",
        symptom="The first step after the resume has the learning rate of the very first step.",
        needs="a resume",
        first=Divergence(Place(4, None, Phase.CLIPPED), Part.OPTIMIZER),
        changes={
            resume: """
     run.scheduler.load_state_dict(state["scheduler"])
+    for group, factor in zip(run.optimizer.param_groups, run.scheduler.lr_lambdas):
+        group["lr"] = group["initial_lr"] * factor(0)
""",
        },
        sources=(
            "tenstorrent/tt-metal#54320",
            "pytorch/pytorch#65342",
        ),
    ),
    Fault(
        name="moments-rounded-at-the-resume",
        symptom="The moments lose digits at each resume: they went through half precision.",
        needs="a resume, and an optimizer with moments",
        first=Divergence(Place(4, None, Phase.STEPPED), Part.PARAMETERS),
        changes={
            resume: """
     load_optimizer(run.optimizer, state["optimizer"])
+    for kept in run.optimizer.state.values():
+        for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
+            kept[name].copy_(kept[name].bfloat16())
""",
        },
        sources=(
            "vllm-project/speculators#899",
            "TensorAuto/OpenTau#184",
            "pytorch/torchtitan#4615",
        ),
    ),
    Fault(
        name="layer-drawn-anew-after-loading",
        symptom="A layer loses what it has learned: it is initialized after it was loaded. Nothing warns.",
        needs="a resume",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            resume: """
     run.model.load_state_dict(state["model"])
+    run.model.up.reset_parameters()
""",
        },
        sources=(
            "huggingface/transformers#46620",
            "huggingface/transformers#45591",
            "fla-org/flash-linear-attention#820",
        ),
    ),
    Fault(
        name="average-starts-anew-after-the-resume",
        symptom="After the resume the moving average is a copy of the weights.",
        needs="a resume, and a moving average",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            resume: """
     run.model.load_state_dict(state["model"])
+    run.model.average.copy_(run.model.embedding.weight.detach())
""",
        },
        sources=(
            "lightly-ai/lightly-train#892",
            "ai2cm/ace#819",
            "m2lines/Samudra#313",
        ),
    ),
)
