"""Replays of a CUDA graph are not seen: an audit judges a training up to the capture, and says so."""

import pytest
import torch
from torch import nn

from gradparity import audit
from gradparity.trace import harmless_hooks


def graphed(captured, model, optimizer, capture):
    """Train three steps, capture a part of one, replay it, and train three more."""

    def backward():
        model(torch.randn(4, 6)).square().mean().backward()

    def step():
        backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    captured.append(True)
    capture(model, step, backward)
    captured.clear()
    for _ in range(3):
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.01)
        step()


def whole_step(model, step, backward):
    step()


def forward_and_backward(model, step, backward):
    backward()
    model.zero_grad()


def grad(model, step, backward):
    torch.autograd.grad(model(torch.randn(4, 6)).sum(), [*model.parameters()])


@pytest.fixture
def captured(monkeypatch):
    """Return a list; a CUDA graph is being captured while there is something in it."""
    state = []
    monkeypatch.setattr(harmless_hooks, "capturing", lambda: bool(state))
    return state


def audited(captured, capture):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = torch.optim.AdamW(model.parameters())
    with audit(model, optimizer) as watching:
        graphed(captured, model, optimizer, capture)
    return watching.report


@pytest.mark.parametrize("capture", [whole_step, forward_and_backward])
def test_what_is_replayed_is_not_taken_for_a_write(captured, capture):
    report = audited(captured, capture)
    assert not report.findings
    assert any("CUDA graph" in note for note in report.notes)


def test_a_graph_of_autograd_grad_ends_nothing(captured):
    report = audited(captured, grad)
    assert report.findings, "the writes are seen"
    assert not any("CUDA graph" in note for note in report.notes)


def test_without_a_graph_the_same_writes_are_found(captured):
    assert audited([], whole_step).findings
