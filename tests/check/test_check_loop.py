"""`gradparity check`: its output, its exit codes, and one sentence for each loop that it cannot check."""

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
from gradparity.check import check, check_loop
from gradparity.check.lookup import fault_lookup
from gradparity.check.lookup.fault_lookup import Finding, Match
from gradparity.check.presentation.report import LIMITS, LIMITS_ON_RANKS, NOT_COVERED, headline, show
from gradparity.check.presentation.report_as_json import as_json
from gradparity.check.presentation.result import CheckResult
from gradparity.check.running.probe import Probe
from gradparity.check.running.user_loop import call_by_name
from gradparity.cli.main import main
from gradparity.errors import UserError
from gradparity.faults import FAULTS
from stressed import known

SENTENCES = {
    "loops": "write MODULE:FUNCTION",
    "loops.py:example": "cannot be imported",
    "tests/loops:example": "write MODULE:FUNCTION",
    "no_such_module:train": "No module named 'no_such_module'); check its name, and run this in the folder",
    "loops:no_such_loop": "loops has no no_such_loop",
    "not_loops:no_function": "is not a plain function",
    "not_loops:awaits": "is not a plain function",
    "not_loops:asks_for_a_device": "takes device, but a loop gets only model, optimizer,",
    "not_loops:takes_seven_with_a_device": "takes device, but a loop gets only model, optimizer,",
    "not_loops:takes_no_model": "does not take the model",
    "not_loops:counts_its_calls": "does not repeat itself: a second run differs at step 0, microbatch 0, forward: loss",
}


@pytest.fixture(autouse=True)
def _in_the_folder_of_the_loops(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.parametrize(("loop", "sentence"), SENTENCES.items())
def test_a_loop_that_cannot_be_checked_gets_one_sentence_and_exit_code_2(loop, sentence, capsys):
    assert main(["check", loop]) == 2
    output = capsys.readouterr()
    assert not output.out
    assert output.err.startswith("gradparity check: ")
    assert sentence in output.err
    assert output.err.count("\n") == 1


def test_a_correct_loop_is_identical(capsys):
    assert main(["check", "loops:example"]) == 0
    verdict, oracle, _, *rest = capsys.readouterr().out.splitlines()
    assert verdict == "Identical: loops:example behaves like the reference, bit for bit, in 8 steps, 2 of them skipped."
    assert oracle.startswith("The loop's first gradient, before any clip, is right, by the whole window in float64: ")
    assert rest == [NOT_COVERED]


def test_the_number_of_threads_set_by_the_check_is_not_blamed_on_the_loop(capsys):
    torch.set_num_threads(2)
    try:
        assert main(["check", "loops:example"]) == 0
    finally:
        torch.set_num_threads(1)
    assert "threads" not in capsys.readouterr().out


def test_the_command_hides_all_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert main(["check", "loops:nothing"]) == 2
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_no_gradients_are_computed_before_the_loop_has_its_process(monkeypatch):
    """On a machine with a GPU, none could be computed there afterwards."""
    order = []
    for name in ("run_in_subprocess", "observe_reference"):
        called_ = getattr(check_loop, name)
        monkeypatch.setattr(check_loop, name, lambda *given, n=name, call=called_: order.append(n) or call(*given))
    check(partial(call_by_name, loops.example, "example"), "example", "fp32")
    assert order == ["run_in_subprocess", "observe_reference"]


def test_output_of_a_loop_does_not_mix_with_the_json(capsys):
    assert main(["check", "loops:validated_saved_and_resumed", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["answer"] == "identical"
    assert answer["faults"] == []


@pytest.mark.parametrize("loop", ["behind_a_data_loader", "a_data_loader_each_epoch"])
def test_a_correct_loop_with_a_data_loader_is_identical_to_a_reference_with_its_random_numbers(loop, capsys):
    assert main(["check", f"loops:{loop}"]) == 0
    assert "like the reference (with its random numbers), bit for bit" in capsys.readouterr().out


@pytest.fixture(scope="module")
def two_faults():
    return check(partial(call_by_name, loops.clip_and_schedule_wrong, "loop"), "loops:clip_and_schedule_wrong", "fp16")


def test_two_faults_are_named_with_the_fix_of_each(two_faults):
    show(two_faults, Console(file=(file := StringIO()), width=200))
    output = file.getvalue()
    assert "with two faults: clip-before-unscale and schedule-advanced-on-skipped-steps." in output
    assert "At step 0, phase unscaled, the gradient of position differs." in output
    assert "The gradients were probably clipped while still multiplied by the loss scale of 4096." in output
    assert "    -    run.scheduler.step()\n    +    if run.scaler.get_scale() >= scale > 1e-38:\n" in output
    assert (
        "    -    run.clip(run.parameters)\n         run.scaler.unscale_(run.optimizer)\n    +    run.clip(" in output
    )
    assert "https://github.com/pytorch/pytorch/issues/67590" in output


@pytest.fixture(params=["few", pytest.param("all", marks=pytest.mark.slow)])
def _among_faults(request, monkeypatch):
    """Compare with few faults, or with all."""
    monkeypatch.setattr(fault_lookup, "MOST_PAIRS", 1)
    if request.param == "few":
        names = (
            "zero-grad-missing",
            "clip-before-unscale",
            "schedule-advanced-on-skipped-steps",
            "naive",
            "clip-twice",
        )
        monkeypatch.setattr(
            check_loop, "look_up", partial(fault_lookup.look_up, known={name: FAULTS[name] for name in names})
        )


@pytest.mark.usefixtures("_among_faults")
def test_three_faults_are_all_named(capsys):
    assert main(["check", "loops:three_things_wrong", "--format", "json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert {fault["name"] for fault in answer["faults"]} == {
        "zero-grad-missing",
        "clip-before-unscale",
        "schedule-advanced-on-skipped-steps",
    }
    assert "with three faults: " in answer["headline"]


def test_json_has_the_whole_report(two_faults):
    answer = json.loads(json.dumps(as_json(two_faults)))
    assert answer["answer"] == "pair"
    assert answer["passed"] is False
    assert answer["first"] == "step 0, unscaled"
    assert {fault["kind"] for fault in answer["faults"]} == {"bug"}
    assert all(fault["sources"] and fault["mend"] for fault in answer["faults"])


def test_a_loop_that_differs_only_by_rounding_passes():
    found = Finding(Match.FAULT, (FAULTS["summed-loss"],))
    rounded = CheckResult(Probe("loop", "fp16", known("summed-loss")), found)
    assert rounded.passed
    assert headline(rounded).startswith(
        "Not a bug, but not the same bits: loop behaves like the reference with summed-"
    )
    wrong = CheckResult(Probe("loop", "fp16", known("naive")), Finding(Match.FAULT, (FAULTS["naive"],)))
    assert not wrong.passed


@pytest.mark.usefixtures("_among_faults")
def test_different_random_draws_are_reported(capsys):
    assert main(["check", "loops:seeded_and_shortened"]) == 1
    assert (
        "From step 0 on it draws different random numbers, as with a DataLoader or a seed;" in capsys.readouterr().out
    )


@pytest.mark.parametrize("patience", ["0", "-1", "nan", "inf", "1e9"])
def test_patience_must_be_a_possible_time(patience, capsys):
    assert main(["check", "loops:example", "--patience", patience]) == 2
    assert "it takes seconds, more than 0 and at most 86400" in capsys.readouterr().err


def test_help_shows_a_correct_loop_and_the_limits(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["check", "--help"])
    assert stopped.value.code == 0
    output = capsys.readouterr().out
    assert "def train(model, optimizer, batches, loss, scaler, scheduler, plan):" in output
    assert LIMITS in output
    assert LIMITS_ON_RANKS in output


def checked_with_references(monkeypatch, *seen):
    """Check a correct loop in a process in which the reference is observed as ``seen``; return how often it was."""
    runs = iter(seen)
    monkeypatch.setattr(check_loop, "observe_reference", lambda *_: next(runs))
    result = check(partial(call_by_name, loops.example, "loop"), "loop", "fp16", quiet=True)
    return result, len(seen) - len(list(runs))


def test_a_reference_that_repeats_itself_is_run_once_after_the_loop(monkeypatch):
    result, run = checked_with_references(monkeypatch, known(None), known(None))
    assert (result.finding.match, run) == (Match.IDENTICAL, 1)


def test_a_reference_that_does_not_repeat_itself_judges_no_loop(monkeypatch):
    with pytest.raises(UserError, match="the reference does not repeat itself on this machine"):
        checked_with_references(monkeypatch, known("stepped-twice"), known(None))
