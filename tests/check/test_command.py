"""`gradparity check`: what it prints, what it returns, and the one sentence for what it cannot use."""

import json
import os
import sys
from functools import partial
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

import loops
from gradparity.check import command, lookup
from gradparity.check.command import check
from gradparity.check.lookup import Answer, Finding
from gradparity.check.report import BLIND, Checked, as_json, headline, show
from gradparity.check.user_loop import called
from gradparity.cli.main import main
from gradparity.faults import FAULTS
from stressed import known

SENTENCES = {
    "loops": "write MODULE:FUNCTION",
    "loops.py:example": "cannot be imported",
    "tests/loops:example": "write MODULE:FUNCTION",
    "no_such_module:train": "no_such_module cannot be imported (ModuleNotFoundError",
    "loops:no_such_loop": "loops has no no_such_loop",
    "loops:no_function": "is no plain function",
    "loops:awaits": "is no plain function",
    "loops:asks_for_a_device": "asks for device; what it can take, by name, is model, optimizer,",
    "loops:takes_no_model": "does not take the model",
    "loops:counts_its_calls": "does not repeat itself: run twice, it differs at step 0, microbatch 0, forward: loss",
}


@pytest.fixture(autouse=True)
def _in_the_folder_of_the_loops(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(("loop", "sentence"), SENTENCES.items())
def test_what_cannot_be_checked_is_told_in_one_sentence(loop, sentence, capsys):
    assert main(["check", loop]) == 2
    told = capsys.readouterr()
    assert not told.out
    assert told.err.startswith("gradparity check: ")
    assert sentence in told.err
    assert told.err.count("\n") == 1


def test_a_right_loop_is_identical(capsys):
    assert main(["check", "loops:example"]) == 0
    verdict, oracle, *rest = capsys.readouterr().out.splitlines()
    assert verdict == "Identical: loops:example behaves like the reference, bit for bit, in 8 steps, 2 of them skipped."
    assert oracle.startswith(
        "By an oracle in float64, over the whole window, its first gradient is right: relative error"
    )
    assert "\n".join(rest) == BLIND


def test_the_number_of_threads_that_it_is_observed_with_is_no_fault_of_a_loop(capsys):
    torch.set_num_threads(2)
    try:
        assert main(["check", "loops:example"]) == 0
    finally:
        torch.set_num_threads(1)
    assert "threads" not in capsys.readouterr().out


def test_no_gpu_is_looked_for(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert main(["check", "loops:nothing"]) == 2
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_no_gradients_are_computed_before_the_loop_has_a_process_of_its_own(monkeypatch):
    """Where there is a GPU, none could be computed there afterwards."""
    order = []
    for name in ("apart", "observe_with"):
        called_ = getattr(command, name)
        monkeypatch.setattr(command, name, lambda *given, n=name, call=called_: order.append(n) or call(*given))
    check(partial(called, loops.example, "example"), "example", "fp32")
    assert order == ["apart", "observe_with", "observe_with"]


def test_what_a_loop_prints_does_not_mix_with_the_answer(capsys):
    assert main(["check", "loops:validated_saved_and_resumed", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["answer"] == "identical"
    assert answer["faults"] == []


def test_a_right_loop_behind_a_data_loader_passes_and_is_told_of_its_draws(capsys):
    assert main(["check", "loops:a_data_loader_each_epoch"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Not a bug, but not the same bits")
    assert "data-loader-draws-a-seed" in out


@pytest.fixture(scope="module")
def two_faults():
    return check(partial(called, loops.clip_and_schedule_wrong, "loop"), "loops:clip_and_schedule_wrong", "fp16")


def test_a_loop_with_two_faults_is_told_with_how_to_mend_both(two_faults):
    show(two_faults, Console(file=(file := StringIO()), width=200))
    told = file.getvalue()
    assert "with two faults: clip-before-unscale and schedule-advanced-on-skipped-steps." in told
    assert "At step 0, phase unscaled, the gradient of position differs." in told
    assert "The gradients were probably clipped while still multiplied by the loss scale of 4096." in told
    assert "    -    run.scheduler.step()\n    +    if run.scaler.get_scale() >= scale > 1e-38:\n" in told
    assert "    -    run.clip(run.parameters)\n         run.scaler.unscale_(run.optimizer)\n    +    run.clip(" in told
    assert "https://github.com/pytorch/pytorch/issues/67590" in told


@pytest.fixture(params=["few", pytest.param("all", marks=pytest.mark.long)])
def _among_faults(request, monkeypatch):
    """Few are looked for, or all."""
    monkeypatch.setattr(lookup, "MOST_PAIRS", 1)
    if request.param == "few":
        names = (
            "zero-grad-missing",
            "clip-before-unscale",
            "schedule-advanced-on-skipped-steps",
            "naive",
            "clip-twice",
        )
        monkeypatch.setattr(command, "look_up", partial(lookup.look_up, known={name: FAULTS[name] for name in names}))


@pytest.mark.usefixtures("_among_faults")
def test_a_loop_with_three_faults_is_told_all_of_them(capsys):
    assert main(["check", "loops:three_things_wrong", "--format", "json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert {fault["name"] for fault in answer["faults"]} == {
        "zero-grad-missing",
        "clip-before-unscale",
        "schedule-advanced-on-skipped-steps",
    }
    assert "with three faults: " in answer["headline"]


def test_programs_get_the_same(two_faults):
    answer = json.loads(json.dumps(as_json(two_faults)))
    assert answer["answer"] == "pair"
    assert answer["passed"] is False
    assert answer["first"] == "step 0, unscaled"
    assert {fault["kind"] for fault in answer["faults"]} == {"bug"}
    assert all(fault["sources"] and fault["mend"] for fault in answer["faults"])


def test_a_loop_that_differs_by_rounding_only_passes_and_is_told_so():
    found = Finding(Answer.FAULT, (FAULTS["summed-loss"],))
    rounded = Checked("loop", "fp16", known("summed-loss"), found, "")
    assert rounded.passed
    assert headline(rounded).startswith(
        "Not a bug, but not the same bits: loop behaves like the reference with summed-"
    )
    wrong = Checked("loop", "fp16", known("naive"), Finding(Answer.FAULT, (FAULTS["naive"],)), "")
    assert not wrong.passed


@pytest.mark.usefixtures("_among_faults")
def test_a_loop_that_draws_other_random_numbers_is_told_so(capsys):
    assert main(["check", "loops:behind_a_data_loader"]) == 1
    assert (
        "From step 0 on it draws other random numbers, as a DataLoader or a seed makes it do;"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("patience", ["0", "-1", "nan", "inf", "1e9"])
def test_patience_is_a_time_that_one_can_wait(patience, capsys):
    assert main(["check", "loops:example", "--patience", patience]) == 2
    assert "it takes seconds, more than 0 and at most 86400" in capsys.readouterr().err


def test_the_help_shows_a_loop_that_is_right(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["check", "--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert "def train(model, optimizer, batches, loss, scaler, scheduler, plan):" in told
    assert BLIND in told
