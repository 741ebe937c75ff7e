"""``assert_parity``: passes where two loops make the same updates, and names the first difference where not."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR

import gradparity
from gradparity.trace.trace_file import read


def make():
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, ExponentialLR(optimizer, 0.9), torch.randn(12, 3, 4)


def accumulated(model, optimizer, scheduler, batches, divide=True, clip=0.5):
    for index, batch in enumerate(batches):
        loss = model(batch).square().mean()
        (loss / 3 if divide else loss).backward()
        if index % 3 == 2:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()


def by_hand(model, optimizer, scheduler, batches):
    parameters = list(model.parameters())
    for window in batches.split(3):
        optimizer.zero_grad()
        for batch in window:
            gradients = torch.autograd.grad(model(batch).square().mean() / 3, parameters)
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g if p.grad is None else p.grad + g
        nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        scheduler.step()


def test_two_ways_to_write_one_training_pass(assert_parity):
    assert_parity(accumulated, by_hand, make)


def test_a_loop_that_forgot_to_divide_is_reported():
    with pytest.raises(AssertionError) as failed:
        gradparity.assert_parity(accumulated, lambda *given: accumulated(*given, divide=False), make)
    words = str(failed.value)
    assert "Not identical" in words
    assert "At step 0, microbatch 0, phase forward, the loss is" in words
    assert "All 3 losses of this step are 3 times the reference's" in words


def test_a_different_clip_threshold_shows_in_the_gradients_that_the_optimizer_reads():
    with pytest.raises(AssertionError) as failed:
        gradparity.assert_parity(accumulated, lambda *given: accumulated(*given, clip=0.25), make)
    words = str(failed.value)
    assert "At step 0, phase clipped, the gradient of 0.weight differs." in words
    assert "0.5 times its length" in words
    assert "The reference changes it to 0.5, the candidate changes it to 0.25." in words


def test_without_tensors_the_difference_is_found_at_the_same_place():
    with pytest.raises(AssertionError, match=r"phase clipped, the gradient of 0.weight differs in bits: norm"):
        gradparity.assert_parity(accumulated, lambda *given: accumulated(*given, clip=0.25), make, full=False)


def test_a_reference_that_differs_from_itself_can_be_no_measure():
    turn = iter(range(100))

    def restless(model, optimizer, scheduler, batches):
        accumulated(model, optimizer, scheduler, batches + next(turn))

    with pytest.raises(AssertionError, match="run twice, the reference differs from itself"):
        gradparity.assert_parity(restless, accumulated, make)


@pytest.mark.parametrize("lazy", ["reference", "candidate"])
def test_a_loop_that_makes_no_step_with_the_given_optimizer_proves_nothing(lazy):
    loops = {"reference": accumulated, "candidate": accumulated, lazy: lambda *_: None}
    with pytest.raises(AssertionError, match=f"the {lazy} loop made no step with the optimizer"):
        gradparity.assert_parity(loops["reference"], loops["candidate"], make)


def test_the_traces_stay_where_they_were_asked_for(tmp_path):
    gradparity.assert_parity(accumulated, by_hand, make, folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"null", "reference", "candidate"}
    assert read(tmp_path / "candidate").complete


def test_the_random_state_outside_is_left_alone():
    before = torch.get_rng_state()
    gradparity.assert_parity(accumulated, accumulated, make)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.long
def test_the_fixture_comes_with_the_package(tmp_path):
    (tmp_path / "test_loop.py").write_text(
        "import torch\n"
        "def make():\n    m = torch.nn.Linear(2, 1)\n    return m, torch.optim.SGD(m.parameters(), lr=0.1)\n"
        "def loop(m, o, scale=1):\n    (m(torch.ones(1, 2)).sum() * scale).backward()\n    o.step()\n"
        "def test_right(assert_parity):\n    assert_parity(loop, loop, make)\n"
        "def test_wrong(assert_parity):\n    assert_parity(loop, lambda m, o: loop(m, o, 2), make)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert "1 failed, 1 passed" in done.stdout
    assert "At step 0, microbatch 0, phase forward, the loss is" in done.stdout
