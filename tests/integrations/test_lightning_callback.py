"""The callback finds nothing where Lightning makes the reference updates, and names what it does otherwise."""

import logging

import lightning
import pytest
import torch
import torch.nn.functional as F
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy

from gradparity.integrations.lightning_callback import ParityCallback
from gradparity.parity.state import Part
from gradparity.studies.tasks import TASKS
from gradparity.studies.tasks.digits import cnn
from gradparity.training import Phase
from left import of_a_recorder
from small import scaler_that_overflows_once


class Digits(lightning.LightningModule):
    """As a user writes it: a mean loss, a metric, a log, a schedule."""

    def __init__(self, interval="step"):
        super().__init__()
        self.model, self.interval = cnn(), interval
        self.accuracy = MulticlassAccuracy(num_classes=10)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        logits = self.model(images)
        self.log("accuracy", self.accuracy(logits, labels))
        return F.cross_entropy(logits, labels)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [{"scheduler": ExponentialLR(optimizer, 0.9), "interval": self.interval}]


class HalfLoss(Digits):
    def backward(self, loss, *args, **kwargs):
        (loss / 2).backward()


class TwoSteps(Digits):
    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer.step(closure=optimizer_closure)
        optimizer.optimizer.step()


class ByHand(Digits):
    """Manual optimization as Lightning's documentation teaches it."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        self.clip_gradients(optimizer, gradient_clip_val=0.05)
        optimizer.step()
        self.lr_schedulers().step()


def mean_loss(module, batch):
    return F.cross_entropy(module.model(batch[0]), batch[1])


def fit(module=None, callback=None, microbatches=9, sizes=None, **arguments):
    """Train; the Trainer's chatter is not what is tested."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)
    module = module() if module else Digits()
    images, labels = TASKS["digits_cnn"]().train
    sizes = sizes or [4] * microbatches
    batches = [(images[sum(sizes[:i]) :][:n], labels[sum(sizes[:i]) :][:n]) for i, n in enumerate(sizes)]
    trainer = lightning.Trainer(
        **{
            "accelerator": "cpu", "max_epochs": 1, "logger": False, "enable_checkpointing": False, "devices": 1,
            "enable_progress_bar": False, "enable_model_summary": False, "accumulate_grad_batches": 3,
            "gradient_clip_val": 0.05, **arguments,
        },
        callbacks=[callback] if callback else [],
    )  # fmt: skip
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return module


pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),  # a difference that is to be found
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
]


def first_of(callback):
    found, mismatch = callback.verdict.first
    return found.place.step, found.place.microbatch, found.place.phase, mismatch.part


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_nothing_is_found_where_lightning_makes_the_reference_updates(precision, k, clip):
    callback = ParityCallback()
    fit(None, callback, precision=precision, accumulate_grad_batches=k, gradient_clip_val=clip)
    assert callback.verdict.parity, callback.verdict.explanation
    assert callback.verdict.steps == 9 // k
    assert all(callback.verdict.cells[Phase.STEPPED, part].compared for part in (Part.PARAMETERS, Part.OPTIMIZER))
    assert callback.verdict.cells[Phase.FORWARD, Part.LOSS].compared == 9


def test_nothing_is_found_with_a_loss_scale_either():
    callback = ParityCallback()
    fit(None, callback, plugins=[MixedPrecision("16-mixed", "cpu", scaler_that_overflows_once(True))])
    assert callback.verdict.parity, callback.verdict.explanation
    assert callback.verdict.cells[Phase.UNSCALED, Part.GRADIENTS].compared


def test_a_schedule_by_epochs_is_followed():
    callback = ParityCallback()
    fit(lambda: Digits("epoch"), callback, max_epochs=3)
    assert callback.verdict.parity, callback.verdict.explanation
    assert callback.verdict.steps == 9


@pytest.mark.parametrize("arguments", [{}, {"gradient_clip_algorithm": "value", "gradient_clip_val": 1e-3}])
def test_not_one_bit_of_the_training_is_changed(arguments):
    watched, alone = fit(None, ParityCallback(), **arguments), fit(None, None, **arguments)
    for a, b in zip(watched.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_partial_last_window_is_divided_by_too_much():
    callback = ParityCallback()
    fit(None, callback, microbatches=8)
    assert first_of(callback) == (2, 0, Phase.FORWARD, Part.LOSS)
    assert "Both losses of this step are 0.667 times the reference's" in callback.verdict.explanation


def test_uneven_microbatches_weigh_what_they_hold_if_the_callback_is_told():
    sizes = [4, 2, 6, 4, 4, 4]
    untold, told = ParityCallback(), ParityCallback(count=lambda batch: len(batch[0]))
    fit(None, untold, sizes=sizes)
    fit(None, told, sizes=sizes)
    assert untold.verdict.parity
    assert first_of(told) == (0, 1, Phase.FORWARD, Part.LOSS), "the first microbatch has the mean size"


def test_the_schedule_is_advanced_after_a_skipped_step():
    callback = ParityCallback()
    fit(None, callback, 15, plugins=[MixedPrecision("16-mixed", "cpu", scaler_that_overflows_once(True))])
    assert first_of(callback) == (4, 0, Phase.FORWARD, Part.SCHEDULER)


@pytest.mark.parametrize(
    ("module", "where"),
    [
        (HalfLoss, (0, 0, Phase.FORWARD, Part.LOSS)),
        (TwoSteps, (1, None, Phase.CLIPPED, Part.OPTIMIZER)),
    ],
)
def test_a_hook_that_was_overridden_wrongly_is_found(module, where):
    callback = ParityCallback()
    fit(module, callback)
    assert first_of(callback) == where


@pytest.mark.parametrize("scaled", [True, False])
def test_manual_optimization_is_held_against_the_reference_too(scaled):
    """https://github.com/Lightning-AI/pytorch-lightning/issues/18089"""
    callback = ParityCallback(loss=mean_loss, max_norm=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, enabled=scaled)
    plugins = [MixedPrecision("16-mixed", "cpu", scaler)] if scaled else None
    fit(ByHand, callback, plugins=plugins, accumulate_grad_batches=1, gradient_clip_val=None)
    assert callback.verdict.parity != scaled
    if scaled:
        assert first_of(callback) == (0, None, Phase.UNSCALED, Part.GRADIENTS)
        assert "The candidate clips before unscale_." in callback.verdict.explanation


def test_what_cannot_be_watched_is_refused_in_a_sentence():
    with pytest.raises(MisconfigurationException, match="needs loss="):
        fit(ByHand, ParityCallback(), accumulate_grad_batches=1, gradient_clip_val=None)

    class TwoOptimizers(ByHand):
        def configure_optimizers(self):
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

    callback = ParityCallback(loss=mean_loss)
    with pytest.raises(MisconfigurationException, match="watches one optimizer, not 2"):
        fit(TwoOptimizers, callback, accumulate_grad_batches=1, gradient_clip_val=None)


@pytest.mark.parametrize(
    ("by", "raised"),
    [
        *[("training_step", kind) for kind in (KeyError, SystemExit, KeyboardInterrupt, GeneratorExit)],
        *[(hook, KeyError) for hook in ("on_train_start", "optimizer_step", "on_train_batch_end")],
    ],
)
def test_whatever_ends_a_training_nobody_watches_afterwards(by, raised):
    watched = []

    def broken(self, *_, **__):
        watched.append(of_a_recorder(self, self.optimizers().optimizer))
        raise raised("broken")

    callback = ParityCallback()
    with pytest.raises(SystemExit if raised is KeyboardInterrupt else raised):
        fit(type("Broken", (Digits,), {by: broken}), callback)
    assert watched[0]
    assert not of_a_recorder(callback._ours.watched.model, callback._ours.watched.optimizer)
    assert not of_a_recorder(callback._theirs.watched.model, callback._theirs.watched.optimizer)


def test_whatever_stops_the_reference_nobody_watches_afterwards(monkeypatch):
    def broken(run, window):
        assert of_a_recorder(run.model, run.optimizer)
        raise KeyError("broken")

    monkeypatch.setattr("gradparity.integrations.lightning_callback.take_step", broken)
    callback = ParityCallback()
    with pytest.raises(KeyError, match="broken"):
        fit(Digits, callback)
    assert not of_a_recorder(callback._ours.watched.model, callback._ours.watched.optimizer)
    assert not of_a_recorder(callback._theirs.watched.model, callback._theirs.watched.optimizer)


def test_the_verdict_is_a_page_in_tensorboard(tmp_path):
    fit(None, ParityCallback(), logger=TensorBoardLogger(tmp_path, name="", version=""))
    accumulator = EventAccumulator(str(tmp_path)).Reload()
    assert "gradparity/verdict/text_summary" in accumulator.Tags()["tensors"]
