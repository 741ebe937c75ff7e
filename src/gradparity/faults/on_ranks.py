"""Faults that need more than one rank: loops that are correct on one rank, and mostly look correct on several.

Like all faults they are patches. They change the manual step and, where possible, also the step with DDP.
"""

from gradparity.faults.fault import Divergence, Fault, FaultKind
from gradparity.faults.stress_scenario import reference
from gradparity.faults.stress_scenario_on_ranks import reference_on_ranks
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train
from gradparity.training.distributed import ddp_step, manual_step

RANK_FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            name="unsynchronised",
            symptom="Each rank trains a model of its own, and only that of rank 0 is saved. Nothing raises.",
            needs="more than one rank",
            first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
            changes={
                reference_on_ranks: """
-    share(tensors_of(model))
""",
                manual_step: """
-    window = replace(window, normalizer=total(window.normalizer) / dist.get_world_size())
-    share(run.model.buffers())
@@
-        if index + 1 == len(window.microbatches):
-            average(run.parameters, averaging)
""",
            },
        ),
        Fault(
            name="unsynchronised-gradients",
            symptom="Ranks begin as one model, and each goes on with its own gradients. Nothing raises.",
            needs="more than one rank",
            first=Divergence(Place(0, 2, Phase.ACCUMULATED), Part.GRADIENTS),
            changes={
                manual_step: """
-        if index + 1 == len(window.microbatches):
-            average(run.parameters, averaging)
""",
                ddp_step: """
-            run.route(run.scaler.scale(loss), run.parameters)
+            manual(run.scaler.scale(loss), run.parameters)
""",
            },
            sources=("torch/nn/parallel/distributed.py",),
        ),
        Fault(
            name="ranks-start-apart",
            symptom="Each rank adds the same updates to other weights; a seed that all ranks share hides it.",
            needs="ranks that draw other weights, and no DDP",
            first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
            changes={
                reference_on_ranks: """
-    share(tensors_of(model))
""",
            },
        ),
        Fault(
            name="own-buffers",
            symptom="BatchNorm's running statistics are each rank's own: what is evaluated depends on the rank.",
            needs="buffers that a forward moves",
            first=Divergence(Place(1, 0, Phase.FORWARD), Part.BUFFERS),
            changes={
                manual_step: """
-    share(run.model.buffers())
""",
            },
        ),
        Fault(
            name="exchanges-every-microbatch",
            symptom="K times the traffic, and other roundings; so it is too with no_sync() around the backward only. "
            "Ranks with fewer microbatches hang.",
            needs="more than one accumulation step",
            first=Divergence(Place(0, 0, Phase.ACCUMULATED), Part.GRADIENTS),
            changes={
                manual_step: """
-        if index + 1 == len(window.microbatches):
-            average(run.parameters, averaging)
+        average(run.parameters, averaging)
""",
                ddp_step: """
-        with nullcontext() if last else run.wrapped.no_sync():
-            with run.autocast():
-                loss = run.loss(run.wrapped, microbatch) / window.normalizer
-            yield Moment(Phase.FORWARD, index, loss.detach())
-            run.route(run.scaler.scale(loss), run.parameters)
+        with run.autocast():
+            loss = run.loss(run.wrapped, microbatch) / window.normalizer
+        yield Moment(Phase.FORWARD, index, loss.detach())
+        with nullcontext() if last else run.wrapped.no_sync():
+            run.route(run.scaler.scale(loss), run.parameters)
""",
            },
            sources=(
                "facebookresearch/ClassyVision#706",
                "huggingface/accelerate#1726",
                "speechbrain/speechbrain#1802",
            ),
            kind=FaultKind.ROUNDING,
        ),
        Fault(
            name="mean-of-rank-means",
            symptom="A token on a rank with few tokens weighs more than one on a rank with many; worst with padding.",
            needs="other numbers of tokens on each rank",
            first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
            changes={
                manual_step: """
-    window = replace(window, normalizer=total(window.normalizer) / dist.get_world_size())
""",
                ddp_step: """
-    window = replace(window, normalizer=total(window.normalizer) / dist.get_world_size())
""",
            },
            sources=(
                "huggingface/transformers#34191",
                "huggingface/transformers#34242",
                "pytorch/torchtitan#2206",
            ),
        ),
        Fault(
            name="averaged-twice",
            symptom="Gradients shrink with the number of ranks; Adam hides it, clipping and SGD do not.",
            needs="more than one rank",
            first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
            changes={
                manual_step: """
-    window = replace(window, normalizer=total(window.normalizer) / dist.get_world_size())
+    window = replace(window, normalizer=total(window.normalizer))
""",
                ddp_step: """
-    window = replace(window, normalizer=total(window.normalizer) / dist.get_world_size())
+    window = replace(window, normalizer=total(window.normalizer))
""",
            },
        ),
        Fault(
            name="summed-over-ranks",
            symptom="Gradients grow with the number of ranks: all_reduce adds them up, and nothing divides them.",
            needs="more than one rank",
            first=Divergence(Place(0, 2, Phase.ACCUMULATED), Part.GRADIENTS),
            changes={
                manual_step: """
-            average(run.parameters, averaging)
+            average(run.parameters, dist.all_reduce)
""",
            },
        ),
        Fault(
            name="scale-of-each-rank",
            symptom="An overflow on one rank is skipped there, and stepped with NaN by all others; their scales part.",
            needs="a loss scale, and an overflow on some ranks only",
            first=Divergence(Place(0, 2, Phase.ACCUMULATED), Part.GRADIENTS),
            changes={
                manual_step: """
-        if index + 1 == len(window.microbatches):
-            average(run.parameters, averaging)
@@
     run.scaler.unscale_(run.optimizer)
+    average(run.parameters, averaging)
""",
            },
            sources=("pytorch/pytorch#136009",),
        ),
        Fault(
            name="local-clip",
            symptom="Ranks with large gradients, which may be the ones to learn from, are each cut to the threshold.",
            needs="a norm above the threshold",
            first=Divergence(Place(0, 2, Phase.ACCUMULATED), Part.GRADIENTS),
            changes={
                manual_step: """
-        if index + 1 == len(window.microbatches):
-            average(run.parameters, averaging)
@@
     run.clip(run.parameters)
+    average(run.parameters, averaging)
""",
            },
        ),
        Fault(
            name="schedule-advanced-on-rank-0-only",
            symptom="The learning rates of the ranks part, and with them their weights.",
            needs="a schedule",
            first=Divergence(Place(1, 0, Phase.FORWARD), Part.SCHEDULER),
            changes={
                manual_step: """
-    if run.scaler.get_scale() >= scale > 1e-38:
+    if dist.get_rank() == 0 and run.scaler.get_scale() >= scale > 1e-38:
""",
                ddp_step: """
-    if run.scaler.get_scale() >= scale > 1e-38:
+    if dist.get_rank() == 0 and run.scaler.get_scale() >= scale > 1e-38:
""",
            },
        ),
        Fault(
            name="eval-mode-stays-on-rank-0",
            symptom="Rank 0, which validates, trains on without dropout and with BatchNorm's running statistics.",
            needs="a validation on one rank",
            first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
            changes={
                train: """
-    run.model.train()
@@
         validation_losses.append(validate(run, held_out, count))
+        run.model.train(dist.get_rank() != 0)
""",
            },
        ),
        Fault(
            name="resumed-on-rank-0-only",
            symptom="After a resume all have rank 0's weights, and the others moments, schedule and scale from anew.",
            needs="a resume",
            first=Divergence(Place(4, 0, Phase.FORWARD), Part.SCALER),
            changes={
                reference: """
-    resume(run, plan.checkpoint)
+    if dist.get_rank() == 0:
+        resume(run, plan.checkpoint)
+    share(tensors_of(model))
""",
            },
        ),
    )
}
"""Faults by name, in the order of a training; ``first`` is from the one of two ranks that shows the fault first."""
