"""The audit as a Lightning callback: every way to train is watched, no bit changes, and no error of ours ends a fit."""

import copy
import pickle

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins import MixedPrecision
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.amp.grad_scaler import GradScaler
from torch.utils.data import DataLoader, TensorDataset

from framework_loops import QUIET, ByHand, Classifier, ClipsEveryMicrobatch, K, TwoPlayers, X, Y, fit, network
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer
from gradparity.integrations import audit_of_fit, lightning_audit
from gradparity.integrations.audit_of_fit import LoopIsWrong
from gradparity.integrations.lightning_audit import AuditCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*number of training batches"),
    pytest.mark.filterwarnings("ignore:GPU available but not used"),
    pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step"),  # Lightning's own SWA and skipped steps
]

EVEN = DataLoader(TensorDataset(X[:36], Y[:36]), 4)


def scaled():
    return MixedPrecision("16-mixed", "cpu", GradScaler("cpu", init_scale=1024.0))


def codes(callback):
    return [(f.rule.code, f.sentence) for f in callback.report.findings]


WAYS = {
    "plain": dict,
    "accumulated": lambda: {"accumulate_grad_batches": K, "data": EVEN},
    "clipped": lambda: {"gradient_clip_val": 0.5, "accumulate_grad_batches": K, "data": EVEN},
    "clipped by value": lambda: {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "fp16 with a scaler": lambda: {"plugins": [scaled()], "gradient_clip_val": 0.5},
    "fp16 without one": lambda: {"plugins": [MixedPrecision("16-mixed", "cpu", GradScaler("cpu", enabled=False))]},
    "bf16": lambda: {"precision": "bf16-mixed", "accumulate_grad_batches": K, "data": EVEN},
    "fp64": lambda: {"precision": "64-true"},
    "overfit": lambda: {"overfit_batches": 2, "max_epochs": 6},
    "validated often": lambda: {"val_check_interval": 2, "num_sanity_val_steps": 2},
    "no sanity check": lambda: {"num_sanity_val_steps": 0},
    "fast": lambda: {"fast_dev_run": 3},
    "averaged": lambda: {"callbacks": [StochasticWeightAveraging(0.005, swa_epoch_start=1)], "max_epochs": 3},
    "average that follows": lambda: {"callbacks": [EMAWeightAveraging()]},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_right_fit_is_clean(way):
    callback = AuditCallback(steps=100)
    arguments = WAYS[way]()
    fit(Classifier(), [*arguments.pop("callbacks", ()), callback], **arguments)
    assert callback.audit.fault is None
    assert codes(callback) == []
    assert callback.report.steps >= 3


@pytest.mark.parametrize("module", [ByHand, TwoPlayers])
def test_manual_optimization_is_watched(module):
    callback = AuditCallback()
    fit(module(), [callback])
    assert codes(callback) == []
    assert callback.report.verdict == "clean"


def test_by_hand_lightning_clips_gradients_that_are_still_scaled_and_is_told():
    callback = AuditCallback()
    fit(ByHand(), [callback], plugins=[scaled()])
    assert [f.rule.code for f in callback.report.findings] == ["GP201"]
    assert callback.report.findings[0].line.source.startswith("self.clip_gradients(optimizer")


def test_a_wrong_fit_is_reported_once_at_the_users_line(capsys):
    callback = AuditCallback()
    fit(ClipsEveryMicrobatch(), [callback], data=EVEN, accumulate_grad_batches=K)
    assert callback.report.verdict == "wrong"
    assert callback.report.findings[0].line.source.startswith("nn.utils.clip_grad_norm_(self.parameters()")
    assert callback.report.does[0].line.source.startswith("optimizer = torch.optim.AdamW(")
    assert capsys.readouterr().err.count("GP302 clip-inside-a-window") == 1


def test_tensorboard_has_the_report(tmp_path):
    fit(Classifier(), [AuditCallback()], logger=TensorBoardLogger(tmp_path))
    accumulator = EventAccumulator(str(next(tmp_path.rglob("events.*")))).Reload()
    [text] = accumulator.Tensors("gradparity/audit/text_summary")
    assert b"nothing wrong, nothing unusual" in text.tensor_proto.string_val[0]


class Ends(lightning.Callback):
    """A callback that is listed later, and a module: neither may lose its end."""

    ended = False

    def teardown(self, trainer, pl_module, stage):
        self.ended = True


def test_it_fails_after_the_fit_and_not_during_it():
    callback, other = AuditCallback(fail_on_wrong=True), Ends()
    module = ClipsEveryMicrobatch()
    with pytest.raises(LoopIsWrong, match=r"the training loop is wrong\n.*GP302"):
        fit(module, [callback, other], data=EVEN, accumulate_grad_batches=K)
    assert other.ended
    assert module.trainer.global_step == 6
    fit(Classifier(), [AuditCallback(fail_on_wrong=True)])


def test_rules_can_be_ignored_and_what_was_meant_can_be_said():
    silent, meant = AuditCallback(ignored=["GP302"]), AuditCallback(accumulation_steps=2)
    fit(ClipsEveryMicrobatch(), [silent], data=EVEN, accumulate_grad_batches=K)
    assert codes(silent) == []
    fit(Classifier(), [meant], data=EVEN, accumulate_grad_batches=K)
    assert [f.rule.code for f in meant.report.findings] == ["GP001"]
    with pytest.raises(TypeError, match="accumulation"):
        AuditCallback(accumulation=2)


def test_each_fit_has_a_report_of_its_own():
    callback = AuditCallback()
    fit(ClipsEveryMicrobatch(), [callback], data=EVEN, accumulate_grad_batches=K)
    fit(Classifier(), [callback], max_epochs=1)
    assert (callback.report.verdict, callback.report.steps) == ("clean", 11)


def trained(callbacks, module=Classifier, **arguments):
    torch.manual_seed(0)
    module = module()
    fit(module, callbacks, **arguments)
    return [*module.state_dict().values(), torch.get_rng_state()]


@pytest.mark.parametrize("module", [Classifier, ByHand, TwoPlayers])
def test_not_one_bit_of_the_training_is_changed(module):
    arguments = {"plugins": [scaled()]} if module is Classifier else {}
    watched, alone = trained([AuditCallback()], module, **arguments), trained([], module, **arguments)
    assert all(torch.equal(a, b) for a, b in zip(watched, alone, strict=True))


def raising(*_, **__):
    raise ZeroDivisionError("ours")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (audit_of_fit, "Audit"),
        (audit_of_fit, "as_text"),
        (lightning_audit.AuditOfFit, "begin"),
        (lightning_audit.AuditOfFit, "end"),
        (lightning_audit.AuditOfFit, "print"),
        (WatchedOptimizer, "gradients"),
    ],
)
def test_an_error_of_ours_never_ends_a_fit(owner, name, monkeypatch):
    alone = trained([])
    monkeypatch.setattr(owner, name, raising)
    callback = AuditCallback(fail_on_wrong=True)
    with pytest.warns(UserWarning, match="the audit ends here, the training goes on: ZeroDivisionError: ours"):
        watched = trained([callback])
    assert all(torch.equal(a, b) for a, b in zip(watched, alone, strict=True))


class Raises(Classifier):
    def training_step(self, batch, batch_idx):
        if batch_idx == 4:
            raise ValueError("bad batch")
        return (
            super().training_step(batch, batch_idx).detach()
            if batch_idx == 5
            else super().training_step(batch, batch_idx)
        )


def test_an_exception_of_the_user_passes_on_and_what_was_seen_is_reported(capsys):
    callback = AuditCallback()
    with pytest.raises(ValueError, match="bad batch"):
        fit(Raises(), [callback])
    assert callback.report.steps == 4
    assert "4 steps watched" in " ".join(capsys.readouterr().err.split())


def test_a_callback_can_be_copied_and_pickled():
    for other in (copy.deepcopy(AuditCallback()), pickle.loads(pickle.dumps(AuditCallback()))):
        assert other.report.verdict == "not judged"


@pytest.mark.parametrize("right", [True, False])
def test_the_trainer_under_its_other_name_is_watched_too(right, tmp_path):
    pl = pytest.importorskip("pytorch_lightning")
    from pytorch_lightning.loggers import TensorBoardLogger as OtherLogger

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        training_step, configure_optimizers = Classifier.training_step, Classifier.configure_optimizers

        def on_after_backward(self):
            if not right:
                ClipsEveryMicrobatch.on_after_backward(self)

    callback = AuditCallback()
    arguments = {**QUIET, "max_epochs": 2, "accumulate_grad_batches": K, "logger": OtherLogger(tmp_path)}
    pl.Trainer(**arguments, callbacks=[callback]).fit(Module(), EVEN)
    assert [f.rule.code for f in callback.report.findings] == ([] if right else ["GP302"])
    accumulator = EventAccumulator(str(next(tmp_path.rglob("events.*")))).Reload()
    assert "gradparity/audit/text_summary" in accumulator.Tags()["tensors"]
