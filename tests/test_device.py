"""A device is made ready for comparisons, or refused in one sentence."""

import os

import pytest
import torch

from gradparity.device import require
from gradparity.errors import UserError


@pytest.fixture
def flags(monkeypatch):
    """The flags, which are put back afterwards."""
    benchmark = torch.backends.cudnn.benchmark
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield lambda: (torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


def test_the_cpu_needs_nothing(flags):
    require("cpu")
    assert flags() == (False, None)


def test_without_a_gpu_there_is_one_sentence(monkeypatch, flags):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^device is cuda, but torch finds no GPU here; use --device cpu$"):
        require("cuda")
    assert flags() == (False, None)


def test_on_a_gpu_algorithms_are_asked_to_be_deterministic(monkeypatch, flags):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    torch.backends.cudnn.benchmark = True
    require("cuda")
    assert flags() == (True, ":4096:8")
    assert not torch.backends.cudnn.benchmark
