"""Faults of train and eval mode, of validation, and of random numbers."""

from gradparity.faults.fault import Divergence, Fault, FaultKind
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, train, train_step, validate
from gradparity.training.loop import unnoticed

TRAIN_AND_EVAL = (
    Fault(
        name="left-in-eval-after-validation",
        symptom="From the first validation on there is no dropout, and BatchNorm stands still.",
        needs="a validation, then more training",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train: """
-    run.model.train()
""",
            unnoticed: """
-        for module, training in modes.items():
-            module.training = training
""",
        },
        sources=(
            "huggingface/lerobot#3668",
            "ermongroup/ncsn#2",
            "wkentaro/pytorch-fcn#57",
            "fartashf/vsepp#4",
        ),
    ),
    Fault(
        name="eval-mode-throughout",
        symptom="No dropout, and BatchNorm uses its running statistics while it trains.",
        needs="dropout or BatchNorm",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train: """
+    run.model.eval()
     for epoch in epochs:
""",
        },
    ),
    Fault(
        name="data-loader-draws-a-seed",
        symptom="None: each epoch a DataLoader takes a number from torch's stream, so dropout draws other masks.",
        needs="dropout",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        kind=FaultKind.ROUNDING,
        changes={
            train: """
     for epoch in epochs:
+        torch.empty((), dtype=torch.int64).random_()
         set_epoch(batches, epoch)
         for window in windows(batches, accumulation_steps, count):
""",
        },
        sources=("torch/utils/data/dataloader.py",),
    ),
    Fault(
        name="validated-in-train-mode",
        symptom="BatchNorm learns from the validation data, and dropout draws other masks after it.",
        needs="BatchNorm or dropout, and a validation",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            unnoticed: """
-    model.eval()
@@
-        restore_random(random)
""",
        },
    ),
    Fault(
        name="validated-in-train-mode-without-autocast",
        symptom="BatchNorm learns from the validation data, and dropout draws other masks after it.",
        needs="BatchNorm or dropout, and a validation",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            unnoticed: """
-    model.eval()
@@
-        restore_random(random)
""",
            validate: """
-            with run.autocast():
-                total += float(run.loss(run.model, batch))
+            total += float(run.loss(run.model, batch))
""",
        },
    ),
    Fault(
        name="dropout-left-off",
        symptom="No dropout.",
        needs="dropout",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train: """
+    run.model.dropout.eval()
     for epoch in epochs:
""",
        },
    ),
    Fault(
        name="batchnorm-frozen",
        symptom="BatchNorm uses its running statistics, and they stand still.",
        needs="BatchNorm",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train: """
+    run.model.norm.eval()
     for epoch in epochs:
""",
        },
    ),
    Fault(
        name="dropout-left-off-after-validation",
        symptom="From the first validation on there is no dropout: only some modules go back to train mode.",
        needs="dropout, a validation, then more training",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train: """
-    run.model.train()
""",
            unnoticed: """
         for module, training in modes.items():
-            module.training = training
+            module.training = training and not isinstance(module, nn.Dropout)
""",
        },
    ),
    Fault(
        name="validation-gradients-left-over",
        symptom="The gradients of the validation data are added to those of the next window.",
        needs="a validation with a backward in it, and no zero_grad after it",
        first=Divergence(Place(4, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
-    run.optimizer.zero_grad(set_to_none=True)
@@
+    run.optimizer.zero_grad(set_to_none=True)
     yield Moment(Phase.STEPPED)
""",
            validate: """
-    with unnoticed(run.model), torch.no_grad():
+    with unnoticed(run.model):
         for batch in held_out:
             with run.autocast():
-                total += float(run.loss(run.model, batch))
+                loss = run.loss(run.model, batch)
+            loss.backward()
+            total += float(loss)
             counted += count(batch)
""",
        },
    ),
    Fault(
        name="trained-on-the-validation-data",
        symptom="The validation loss is too good to be true.",
        needs="a validation",
        first=Divergence(Place(3, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train: """
-        for window in windows(batches, accumulation_steps, count):
+        for window in windows(itertools.chain(batches, held_out), accumulation_steps, count):
""",
        },
    ),
    Fault(
        name="seeded-every-step",
        symptom="Every step draws the same dropout masks.",
        needs="random numbers",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train_step: """
+    torch.manual_seed(0)
     run.optimizer.zero_grad(set_to_none=True)
""",
        },
    ),
    Fault(
        name="seeded-every-epoch",
        symptom="Every epoch draws the same dropout masks.",
        needs="random numbers",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            train: """
     for epoch in epochs:
+        torch.manual_seed(0)
""",
        },
    ),
)
