"""A loop is compared with the reference that it means to be, and a right loop as people write it passes."""

import copy
from dataclasses import fields, replace
from functools import cache, partial

import pytest
import torch

import loops
import peoples_loops
from gradparity.check import check
from gradparity.check.intended.intended_reference import noting
from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.presentation.remarks import remarks
from gradparity.check.presentation.report import headline
from gradparity.check.running.user_loop import call_by_name
from gradparity.cli.check import main
from gradparity.faults import stress_scenario

QUICK = ("one_batch_a_step", "with_its_own_threshold", "with_sgd_of_its_own", "learning_rate_by_hand")


@cache
def checked(loop):
    return check(partial(call_by_name, loop, loop.__name__), loop.__name__)


@pytest.mark.parametrize(
    "loop",
    [pytest.param(loop, marks=() if loop.__name__ in QUICK else pytest.mark.slow) for loop in peoples_loops.RIGHT],
)
def test_a_right_loop_as_people_write_it_passes(loop):
    result = checked(loop)
    assert result.passed, headline(result)
    assert not result.finding.faults


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (peoples_loops.one_batch_a_step, ["without a schedule", "without a clip", "with 1 microbatch a step", "for one epoch"]),
        (peoples_loops.with_its_own_threshold, ["clipped to 1", "with 1 microbatch a step"]),
        (loops.example, []),
    ],
)  # fmt: skip
def test_the_reference_is_changed_as_the_loop_means_it(loop, words):
    result = checked(loop)
    assert (result.finding.match, [one.words for one in result.meant]) == (Match.IDENTICAL, words)


def never_zeroes(model, optimizer, batches, loss):
    for batch in batches:
        (loss(model, batch) / (batch.targets != -100).sum()).backward()
        optimizer.step()


def reads_the_threshold_and_does_not_clip(model, optimizer, batches, loss, scheduler, plan):
    assert plan.max_norm
    for window, tokens in peoples_loops.windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            (loss(model, batch) / tokens).backward()
        optimizer.step()
        scheduler.step()


def takes_the_scheduler_and_never_steps_it(model, optimizer, batches, loss, scheduler, plan):
    for window, tokens in peoples_loops.windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            (loss(model, batch) / tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        optimizer.step()


@pytest.mark.parametrize(
    ("loop", "fault"),
    [
        (never_zeroes, "zero-grad-missing"),
        (reads_the_threshold_and_does_not_clip, "clipping-missing"),
        pytest.param(takes_the_scheduler_and_never_steps_it, "schedule-never-advanced", marks=pytest.mark.long),
    ],
)
def test_a_wrong_loop_is_wrong_against_the_reference_that_it_means(loop, fault):
    result = checked(loop)
    assert not result.passed
    assert fault in [one.name for one in result.finding.faults]


SAID = {"--accumulation-steps": "1", "--max-norm": "none", "--scheduler": "none"}


def main_with(said):
    return main(["peoples_loops:with_autocast", *(part for pair in said.items() for part in pair)])


def test_a_loop_that_does_what_it_is_said_to_mean_passes():
    assert main_with(SAID) == 0


@pytest.mark.parametrize(
    ("option", "value", "fault"),
    [
        pytest.param("--accumulation-steps", "3", "steps-every-microbatch", marks=pytest.mark.long),
        ("--max-norm", "30", "clipping-missing"),
        pytest.param("--scheduler", "given", "schedule-never-advanced", marks=pytest.mark.long),
    ],
)
def test_a_loop_that_does_not_do_what_it_is_said_to_mean_is_wrong(option, value, fault, capsys):
    assert main_with(SAID | {option: value}) == 1
    assert fault in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--accumulation-steps", "0"], ["--max-norm", "-1"], ["--max-norm", "much"]])
def test_bad_options_are_refused(option, capsys):
    with pytest.raises((SystemExit, Exception)) as stopped:
        main(["peoples_loops:with_autocast", *option])
    assert option[0] in capsys.readouterr().err + str(stopped.value)


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (lambda plan: plan.max_norm, {"max_norm"}),
        (lambda plan: getattr(plan, "epochs"), {"epochs"}),  # noqa: B009  # as some loops do
        (lambda plan: None, set()),
        (lambda plan: hasattr(plan, "no_such_field"), set()),
    ],
)
def test_what_is_read_of_the_plan_is_noted(read, expected):
    noted = set()
    read(noting(stress_scenario.build("fp32").plan, noted))
    assert noted == expected


@pytest.mark.parametrize("read", [vars, lambda plan: replace(plan, epochs=1)])
def test_a_plan_that_is_read_as_a_whole_counts_as_read(read):
    noted = set()
    read(noting(stress_scenario.build("fp32").plan, noted))
    assert {"max_norm", "accumulation_steps"} <= noted
    assert "ema_decay" not in noted, "a copy of the plan says nothing of an average"


def test_the_plan_is_the_same_plan():
    plan = stress_scenario.build("fp32").plan
    noted = noting(plan, set())
    assert isinstance(noted, stress_scenario.Plan)
    assert all(getattr(noted, field.name) is getattr(plan, field.name) for field in fields(plan))


def keeps_the_beginning(model, optimizer, batches, loss):
    kept = copy.deepcopy(model)
    for batch in batches:
        optimizer.zero_grad()
        (loss(model, batch) / (batch.targets != -100).sum()).backward()
        optimizer.step()
    assert kept is not model


def test_a_model_of_the_loops_own_is_said_not_to_be_compared():
    result = checked(keeps_the_beginning)
    assert result.finding.match == Match.IDENTICAL
    assert any("kept (StressModel)" in line for line in remarks(result))
    assert not any("Not compared" in line for line in remarks(checked(peoples_loops.one_batch_a_step)))
