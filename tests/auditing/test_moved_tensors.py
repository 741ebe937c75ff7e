"""Tensors that move between the CPU and a GPU in the middle of an audit have no other content for that."""

import pytest
import torch
from helpers import slow_gpu
from torch import nn

from gradparity import audit, record
from gradparity.auditing.recorded.facts import facts_of
from gradparity.auditing.report import report
from gradparity.auditing.watching.first_hashes import FirstHashes
from gradparity.trace import arrangement
from gradparity.trace.digest import Hash
from gradparity.trace.trace_file import read


@pytest.fixture
def move(monkeypatch):
    """Return a function that moves all tensors to the CPU or to a GPU, as far as their hash is concerned."""
    real = arrangement.hash_on

    def moved(to_gpu):
        monkeypatch.setattr(arrangement, "hash_on", lambda device: Hash.SUMS if to_gpu else real(device))
        slow_gpu.forget_arrangements()

    yield moved
    slow_gpu.forget_arrangements()


def make(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3), nn.Linear(3, 400))
    return model, kind(model.parameters(), lr=0.01)


def sgd(parameters, lr):
    return torch.optim.SGD(parameters, lr, momentum=0.9)


def adamw(parameters, lr):
    return torch.optim.AdamW(parameters, lr)


def train(model, optimizers, move, places, write=False, by_hand=False, keep=False):
    """Train two steps in each place, and move between any two events of a step after the first ones."""
    number = 0
    for step, optimizer in enumerate(optimizers):
        for part in range(4):
            move(places(number))
            number += 1
            if part < 2:
                loss = model(torch.randn(4, 6)).square().mean() / 2
                if by_hand:
                    for p, g in zip(model.parameters(), torch.autograd.grad(loss, [*model.parameters()]), strict=True):
                        p.grad = g if p.grad is None else p.grad + g
                else:
                    loss.backward()
            elif part == 2:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            else:
                optimizer.step()
        if not keep:
            optimizer.zero_grad()
        if write and step == 3:
            with torch.no_grad():
                next(model.parameters()).add_(1.0)


PLACES = {
    "to the GPU after the second step": lambda i: i >= 8,
    "to the CPU after the second step": lambda i: i < 8,
    "to the GPU between backwards": lambda i: i >= 9,
    "to the CPU between backwards": lambda i: i < 9,
    "between the clip and the step": lambda i: i >= 11,
    "there and back in every step": lambda i: i % 4 < 3,
    "back and there in every step": lambda i: i % 4 == 3,
}


def findings(kind, move, places, **how):
    model, optimizer = make(kind)
    move(places(0))
    with audit(model, optimizer) as watching:
        train(model, [optimizer] * 6, move, places, **how)
    assert not watching.report.notes
    return {finding.rule.code for finding in watching.report.findings}


@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("kind", [sgd, adamw])
@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_a_move_is_no_write(kind, places, by_hand, move):
    assert findings(kind, move, places, by_hand=by_hand) == set()


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_a_write_is_seen_beside_moves(places, move):
    on_the_cpu = findings(adamw, move, lambda i: False, write=True)
    assert on_the_cpu
    assert findings(adamw, move, places, write=True) == on_the_cpu


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_gradients_that_are_left_are_seen_beside_moves(places, move):
    on_the_cpu = findings(adamw, move, lambda i: False, keep=True)
    assert on_the_cpu
    assert findings(adamw, move, places, keep=True) == on_the_cpu


@pytest.mark.parametrize("place", ["GPU", "CPU"])
def test_by_the_hash_of_each_place_a_move_would_be_a_write(place, move, monkeypatch):
    monkeypatch.setattr(FirstHashes, "of", lambda self, tensors: None)
    assert findings(adamw, move, PLACES[f"to the {place} after the second step"])


@pytest.mark.parametrize("to_gpu", [True, False])
def test_an_optimizer_that_is_built_after_the_move_reads_the_same_content(to_gpu, move):
    model, first = make(adamw)
    move(not to_gpu)
    with audit(model, first) as watching:
        train(model, [first] * 2, move, lambda i: not to_gpu)
        move(to_gpu)
        second = torch.optim.SGD(model.parameters(), lr=0.01)
        train(model, [second, first] * 2, move, lambda i: to_gpu)
    stays = {finding.rule.code for finding in watching.report.findings}
    model, first = make(adamw)
    move(False)
    with audit(model, first) as watching:
        train(model, [first] * 2, move, lambda i: False)
        second = torch.optim.SGD(model.parameters(), lr=0.01)
        train(model, [second, first] * 2, move, lambda i: False)
    assert {finding.rule.code for finding in watching.report.findings} == stays


def recorded(folder, move, places, **how):
    model, optimizer = make(adamw)
    move(places(0))
    with record(model, optimizer, folder, strict=True):
        train(model, [optimizer] * 6, move, places, **how)
    return facts_of(read(folder))


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
def test_a_recording_is_judged_up_to_the_first_move(places, move, tmp_path):
    facts = recorded(tmp_path / "trace", move, places)
    assert any("moved between the CPU and a GPU" in note for note in facts.notes)
    assert facts.let_go
    assert not report(facts).findings


def test_a_recording_without_a_move_is_judged_to_its_end(move, tmp_path):
    facts = recorded(tmp_path / "trace", move, lambda i: True)
    assert (facts.stories[0].steps, facts.notes, facts.let_go) == (6, [], False)
