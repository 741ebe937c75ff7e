"""Each process-wide setting that a loop may change is named, and restored."""

import os

import pytest
import torch
from torch import nn
from torch.overrides import BaseTorchFunctionMode

from gradparity.check.running import global_state
from gradparity.check.running.global_state import SETTINGS, GlobalState, Setting
from gradparity.processes.sandbox import run_in_subprocess

CHANGES = {
    "function modes": (lambda: BaseTorchFunctionMode().__enter__(), "function modes (BaseTorchFunctionMode) on"),
    "inference mode": (lambda: SETTINGS["inference mode"].put(True), "inference mode on"),
    "gradient recording": (lambda: torch.set_grad_enabled(False), "gradient recording off"),
    "the default dtype": (lambda: torch.set_default_dtype(torch.float64), "the default dtype at torch.float64"),
    "the default device": (lambda: torch.set_default_device("meta"), "the default device at meta"),
    "autocast": (lambda: torch.set_autocast_enabled("cpu", True), "autocast on"),
    "autocast's dtype": (lambda: torch.set_autocast_dtype("cpu", torch.float16), "autocast's dtype at torch.float16"),
    "autocast's depth": (lambda: torch.autocast_increment_nesting(), "autocast's depth at 1"),
    "deterministic algorithms": (lambda: torch.use_deterministic_algorithms(True), "deterministic algorithms at 2"),
    "anomaly detection": (lambda: torch.autograd.set_detect_anomaly(True), "anomaly detection on"),
    "the float32 matmul precision": (
        lambda: torch.set_float32_matmul_precision("high"),
        "the float32 matmul precision at high",
    ),
    "flushing of denormal numbers": (
        lambda: torch.set_flush_denormal(True),
        "flushing of denormal numbers on",
    ),
    "the number of threads": (lambda: torch.set_num_threads(3), "the number of threads at 3"),
    "the working directory": (lambda: os.chdir("/"), "the working directory at /"),
}
OTHERS = {
    "a function": (lambda: setattr(nn.functional, "dropout", print), "a replaced torch.nn.functional.dropout"),
    "a class": (lambda: setattr(nn, "Linear", GlobalState), "a replaced torch.nn.Linear"),
    "a method": (lambda: setattr(torch.Tensor, "backward", print), "a replaced torch.Tensor.backward"),
    "a hook": (
        lambda: nn.modules.module.register_module_forward_pre_hook(print),
        "a hook in torch.nn.modules.module._global_forward_pre_hooks",
    ),
}


def changed_and_restored(change, limit):
    before, values = GlobalState.now(), {name: setting.get() for name, setting in SETTINGS.items()}
    change()
    output = before.changed()
    before.restore()
    after = {name: setting.get() for name, setting in SETTINGS.items()}
    return output, before.changed(), values == after


def test_every_setting_has_a_test():
    assert CHANGES.keys() == SETTINGS.keys()


@pytest.mark.parametrize(("change", "sentence"), [*CHANGES.values(), *OTHERS.values()])
def test_a_changed_setting_is_named_and_restored(change, sentence):
    output, afterwards, same = run_in_subprocess(lambda limit: changed_and_restored(change, limit), 60)
    assert sentence in output
    assert set(output) <= {sentence, "gradient recording off"}  # which inference mode is, too
    assert afterwards == []
    assert same


def test_without_a_change_nothing_is_named():
    assert GlobalState.now().changed() == []


def test_a_setting_that_is_not_restored_is_noticed(monkeypatch):
    kept = Setting(torch.get_default_dtype, lambda dtype: None)
    monkeypatch.setattr(global_state, "SETTINGS", {**SETTINGS, "the default dtype": kept})
    _, afterwards, same = run_in_subprocess(
        lambda limit: changed_and_restored(CHANGES["the default dtype"][0], limit), 60
    )
    assert afterwards == ["the default dtype at torch.float64"]
    assert not same


def test_a_default_device_is_restored_under_a_function_mode():
    def change():
        torch.set_default_device("meta")
        BaseTorchFunctionMode().__enter__()

    output, afterwards, same = run_in_subprocess(lambda limit: changed_and_restored(change, limit), 60)
    assert len(output) == 2
    assert afterwards == []
    assert same
