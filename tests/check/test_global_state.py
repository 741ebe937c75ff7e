"""Each setting of a process that a loop may change is named, and put back."""

import os

import pytest
import torch
from torch import nn
from torch.overrides import BaseTorchFunctionMode

from gradparity.check import global_state
from gradparity.check.global_state import SETTINGS, Setting, Settings
from gradparity.processes.sandbox import apart

CHANGES = {
    "function modes": (lambda: BaseTorchFunctionMode().__enter__(), "function modes (BaseTorchFunctionMode) on"),
    "inference mode": (lambda: SETTINGS["inference mode"].put(True), "inference mode on"),
    "the recording of gradients": (lambda: torch.set_grad_enabled(False), "the recording of gradients off"),
    "the default dtype": (lambda: torch.set_default_dtype(torch.float64), "the default dtype at torch.float64"),
    "the default device": (lambda: torch.set_default_device("meta"), "the default device at meta"),
    "autocast": (lambda: torch.set_autocast_enabled("cpu", True), "autocast on"),
    "autocast's dtype": (lambda: torch.set_autocast_dtype("cpu", torch.float16), "autocast's dtype at torch.float16"),
    "autocast's depth": (lambda: torch.autocast_increment_nesting(), "autocast's depth at 1"),
    "deterministic algorithms": (lambda: torch.use_deterministic_algorithms(True), "deterministic algorithms at 2"),
    "anomaly detection": (lambda: torch.autograd.set_detect_anomaly(True), "anomaly detection on"),
    "the precision of float32 products": (
        lambda: torch.set_float32_matmul_precision("high"),
        "the precision of float32 products at high",
    ),
    "the flushing of denormal numbers": (
        lambda: torch.set_flush_denormal(True),
        "the flushing of denormal numbers on",
    ),
    "the number of threads": (lambda: torch.set_num_threads(3), "the number of threads at 3"),
    "the working directory": (lambda: os.chdir("/"), "the working directory at /"),
}
OTHERS = {
    "a function": (lambda: setattr(nn.functional, "dropout", print), "a replaced torch.nn.functional.dropout"),
    "a class": (lambda: setattr(nn, "Linear", Settings), "a replaced torch.nn.Linear"),
    "a method": (lambda: setattr(torch.Tensor, "backward", print), "a replaced torch.Tensor.backward"),
    "a hook": (
        lambda: nn.modules.module.register_module_forward_pre_hook(print),
        "a hook in torch.nn.modules.module._global_forward_pre_hooks",
    ),
}


def changed_and_put_back(change, watch):
    before, values = Settings.now(), {name: setting.get() for name, setting in SETTINGS.items()}
    change()
    told = before.changed()
    before.put_back()
    after = {name: setting.get() for name, setting in SETTINGS.items()}
    return told, before.changed(), values == after


def test_every_setting_is_tried():
    assert CHANGES.keys() == SETTINGS.keys()


@pytest.mark.parametrize(("change", "sentence"), [*CHANGES.values(), *OTHERS.values()])
def test_a_change_is_named_and_put_back(change, sentence):
    told, afterwards, same = apart(lambda watch: changed_and_put_back(change, watch), 60)
    assert sentence in told
    assert set(told) <= {sentence, "the recording of gradients off"}  # which inference mode is, too
    assert afterwards == []
    assert same


def test_what_nobody_has_changed_is_not_named():
    assert Settings.now().changed() == []


def test_a_setting_that_is_not_put_back_is_noticed(monkeypatch):
    kept = Setting(torch.get_default_dtype, lambda dtype: None)
    monkeypatch.setattr(global_state, "SETTINGS", {**SETTINGS, "the default dtype": kept})
    _, afterwards, same = apart(lambda watch: changed_and_put_back(CHANGES["the default dtype"][0], watch), 60)
    assert afterwards == ["the default dtype at torch.float64"]
    assert not same


def test_a_default_device_is_put_back_together_with_a_mode_above_it():
    def change():
        torch.set_default_device("meta")
        BaseTorchFunctionMode().__enter__()

    told, afterwards, same = apart(lambda watch: changed_and_put_back(change, watch), 60)
    assert len(told) == 2
    assert afterwards == []
    assert same
