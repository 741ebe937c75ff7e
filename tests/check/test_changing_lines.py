"""A wrong loop whose fault is not in the dictionary is led to the lines that write what differs first."""

import sys
from functools import partial

import pytest
import torch

import loops
import unknown_faults
from gradparity.check import check_loop
from gradparity.check.check_loop import check
from gradparity.check.lookup.fault_lookup import Finding, Match
from gradparity.check.presentation.report import headline
from gradparity.check.running import changing_lines
from gradparity.check.running.changing_lines import LineRun, LineWatcher
from gradparity.check.running.observe import observe
from gradparity.check.running.user_loop import call_by_name
from gradparity.faults import stress_scenario

QUICK = ("gradients_halved", "rate_divided_by_the_accumulation_steps", "inputs_damaged_in_place")


@pytest.fixture
def _no_dictionary(monkeypatch):
    """The lines do not depend on it, and it takes most of the time."""
    monkeypatch.setattr(check_loop, "look_up", lambda *_, **__: Finding(Match.UNKNOWN))
    monkeypatch.setattr(check_loop, "match_with_rounding", lambda *_, **__: None)


def checked(loop):
    return check(partial(call_by_name, loop, loop.__name__), loop.__name__, "fp16", quiet=True)


@pytest.mark.usefixtures("_no_dictionary")
@pytest.mark.parametrize(
    "loop",
    [pytest.param(loop, marks=() if loop.__name__ in QUICK else pytest.mark.slow) for loop in unknown_faults.WRONG],
    ids=lambda loop: loop.__name__,
)
def test_the_line_of_an_unknown_fault_is_shown(loop):
    result = checked(loop)
    assert not result.passed, headline(result)
    assert any("# wrong" in line.source for line in result.lines), [str(line) for line in result.lines]


def test_no_line_is_shown_of_a_loop_that_passes():
    assert checked(loops.example).lines == ()


def watched(loop):
    watcher = LineWatcher()
    build = partial(watcher.build, stress_scenario.build)
    seen = observe(watcher.watching(call_by_name(loop, "loop")), build, "fp16", watcher.count)
    return watcher, seen


def test_watching_the_lines_changes_no_bit():
    watcher, seen = watched(loops.zero_grad_at_the_end)
    assert seen == observe(call_by_name(loops.zero_grad_at_the_end, "loop"), stress_scenario.build, "fp16")
    assert {run.line.function for run in watcher.runs} == {
        "zero_grad_at_the_end",
        "windows",
        "<listcomp>",
        "update",
    } - ({"<listcomp>"} if sys.version_info >= (3, 12) else set())


def test_a_line_is_noted_with_what_it_changes():
    watcher, _ = watched(unknown_faults.WRONG[0])
    halving = [run for run in watcher.runs if "# wrong" in run.line.source]
    assert halving
    assert {part for run in halving for part, _ in run.changed} == {"gradients"}
    assert all(run.begins == run.ends for run in halving)


def test_the_same_observations_have_no_line():
    watcher, seen = watched(loops.zero_grad_at_the_end)
    assert (
        changing_lines.changing_lines(watcher.runs, seen.observations, seen.observations, len(seen.observations)) == []
    )


def unreadable(model, optimizer, batches):
    model.register_buffer("without_values", torch.zeros(8, device="meta"))
    optimizer.zero_grad()


def test_values_that_cannot_be_read_end_the_watching_and_not_the_loop():
    watcher, seen = watched(unreadable)
    assert seen.end.finished
    assert not any(isinstance(run, LineRun) for run in watcher.runs)


def of_many_lines(model, batches):
    for _ in range(100_000):
        len(batches)


def test_a_loop_of_many_lines_comes_to_its_end(monkeypatch):
    monkeypatch.setattr(changing_lines, "_MOST_LINES", 50)
    watcher, seen = watched(of_many_lines)
    assert seen.end.finished
    assert len(watcher.runs) == 50
