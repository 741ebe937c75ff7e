"""The audit as a callback of transformers: right and wrong losses, no bit changed, no error of ours ends a training."""

import importlib
import sys

import pytest
import torch

from framework_loops import transformers_trainer
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer
from gradparity.integrations import audit_of_fit
from gradparity.integrations.audit_of_fit import LoopIsWrong

pytest.importorskip("transformers")
from gradparity.integrations.transformers_audit import AuditCallback

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning:(torch|transformers|accelerate)")]

EARLIER = {"report_to": ["tensorboard"], "logging_strategy": "steps", "logging_steps": 1}


@pytest.mark.parametrize("arguments", [{}, {"bf16": False}, {"max_grad_norm": 0.0}, {"eval_strategy": "no", **EARLIER}])
def test_a_right_training_is_clean_and_printed_once(arguments, capsys):
    callback = AuditCallback()
    transformers_trainer(True, [callback], **arguments)
    assert [(f.rule.code, f.sentence) for f in callback.report.findings] == []
    assert (callback.report.verdict, callback.report.steps) == ("clean", 8)
    assert capsys.readouterr().err.count("nothing wrong, nothing unusual") == 1


def test_a_wrong_training_is_reported_at_the_users_line():
    callback = AuditCallback()
    transformers_trainer(False, [callback])
    [finding] = callback.report.findings
    assert finding.rule.code == "GP404"
    assert ".train()" in finding.line.source


def test_it_fails_after_the_training_if_that_is_asked_for():
    with pytest.raises(LoopIsWrong, match="GP001 other-accumulation-steps"):
        transformers_trainer(True, [AuditCallback(fail_on_wrong=True, accumulation_steps=2)])
    transformers_trainer(True, [AuditCallback(fail_on_wrong=True, accumulation_steps=3)])


def trained(callbacks):
    torch.manual_seed(0)
    model = transformers_trainer(True, callbacks)
    return [*model.state_dict().values(), torch.get_rng_state()]


def test_not_one_bit_of_the_training_is_changed():
    assert all(torch.equal(a, b) for a, b in zip(trained([AuditCallback()]), trained([]), strict=True))


def raising(*_, **__):
    raise ZeroDivisionError("ours")


@pytest.mark.parametrize(
    ("owner", "name"), [(audit_of_fit, "Audit"), (audit_of_fit.AuditOfFit, "end"), (WatchedOptimizer, "gradients")]
)
def test_an_error_of_ours_never_ends_a_training(owner, name, monkeypatch):
    monkeypatch.setattr(owner, name, raising)
    with pytest.warns(UserWarning, match="the audit ends here, the training goes on: ZeroDivisionError: ours"):
        transformers_trainer(True, [AuditCallback(fail_on_wrong=True)])


def test_without_transformers_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "gradparity.integrations.transformers_audit")
    with pytest.raises(ImportError, match="transformers, which is not installed; pip install transformers"):
        importlib.import_module("gradparity.integrations.transformers_audit")
