"""The norms of the gradients at each step tell most faults from a loop, and none that full records do not tell from it."""

import math
from dataclasses import replace

import pytest

import loops
from gradparity.check.lookup import rounding
from gradparity.check.lookup.rounding import CLOSE_IN_FP32, is_close, match_with_rounding
from gradparity.check.lookup.seen_runs import SeenRun
from gradparity.check.lookup.step_norms import may_be_close, norms_of, run_norms
from gradparity.check.running.loop_end import EndKind, LoopEnd
from gradparity.check.running.observe import observe, observe_reference
from gradparity.check.running.user_loop import call_by_name
from gradparity.faults import FAULTS, FaultKind, stress_scenario
from gradparity.faults.patching import reference_with

pytestmark = pytest.mark.processor

BUGS = [fault for fault in FAULTS.values() if fault.kind == FaultKind.BUG]
SOME = {"clip-before-unscale", "stepped-twice", "last-window-dropped", "parameter-missing-from-the-optimizer"}
SOME |= {"zeros-instead-of-none", "optimizer-not-restored"}


def norms_with(faults, expected):
    names = reference_with(faults)
    return run_norms(names["reference"], names["build"], "fp32", expected, CLOSE_IN_FP32)


def how_long(index, fault):
    if fault.name in SOME:
        return ()
    return pytest.mark.slow if index % 4 else pytest.mark.long


@pytest.mark.parametrize("fault", [pytest.param(f, id=f.name, marks=how_long(i, f)) for i, f in enumerate(BUGS)])
def test_the_norms_are_those_of_the_records(fault):
    whole = observe_reference([fault], "fp32")
    seen = norms_with([fault], None)
    if whole.end.finished:
        assert may_be_close(seen, norms_of(whole), 1e-6)
    else:
        assert not may_be_close(seen, norms_of(whole), 1e-6)
    other = observe_reference([], "fp32")
    assert may_be_close(seen, norms_of(other), CLOSE_IN_FP32) or not is_close(other, [fault], "fp32", CLOSE_IN_FP32)


def test_a_run_is_stopped_at_its_first_step_that_is_not_the_loops():
    expected = norms_of(observe_reference([], "fp32"))
    assert len(norms_with([], expected).norms) == len(expected) == 8
    stopped = norms_with([FAULTS["mean-of-microbatch-means"]], expected)
    assert (stopped.end, len(stopped.norms)) == (None, 1)
    longer = norms_with([FAULTS["stepped-twice"]], expected[:1])
    assert (longer.end, len(longer.norms)) == (None, 2), "a step too many stops it too"


STEP = {"a": 1.0, "b": 2.0, "c": None}


@pytest.mark.parametrize(
    ("change", "alike"),
    [
        ({}, True),
        ({"a": 1.0 + 1e-5}, True),
        ({"a": 1.01}, False),
        ({"c": 0.0}, False),
        ({"b": None}, False),
        ({"d": 1.0}, False),
        ({"a": math.inf}, False),
        ({"a": math.nan}, False),
    ],
)
def test_two_steps_are_alike_if_their_norms_are_close(change, alike):
    run = SeenRun(b"", LoopEnd(), norms=(STEP, STEP | change))
    assert may_be_close(run, [STEP, STEP], CLOSE_IN_FP32) == alike
    assert may_be_close(SeenRun(b"", LoopEnd(), norms=(STEP, STEP)), [STEP, STEP | change], CLOSE_IN_FP32) == alike


def test_where_both_overflow_no_norm_is_compared():
    run = SeenRun(b"", LoopEnd(), norms=(STEP | {"a": math.inf},))
    assert may_be_close(run, [STEP | {"b": math.nan}], CLOSE_IN_FP32)


def test_too_few_steps_say_nothing_unless_the_run_ended():
    run = SeenRun(b"", None, norms=(STEP,))
    assert may_be_close(run, [STEP, STEP], CLOSE_IN_FP32) is None
    assert may_be_close(replace(run, end=LoopEnd()), [STEP, STEP], CLOSE_IN_FP32) is False
    assert may_be_close(replace(run, end=LoopEnd()), [STEP], CLOSE_IN_FP32) is True
    assert may_be_close(replace(run, end=LoopEnd(EndKind.RAISED, "E")), [STEP], CLOSE_IN_FP32) is False
    assert may_be_close(run, [], CLOSE_IN_FP32) is False


def test_norms_that_are_remembered_give_the_same_answer_without_a_run(monkeypatch):
    monkeypatch.setattr(rounding, "FAULTS", {f.name: f for f in BUGS if f.name in SOME})
    loop, in_fp32 = (
        observe(call_by_name(loops.shorter_and_shorter, "loop"), stress_scenario.build, precision)
        for precision in ("fp16", "fp32")
    )
    ran, memory = [], {}
    run = rounding.run_norms
    monkeypatch.setattr(rounding, "run_norms", lambda *given: ran.append(given) or run(*given))

    def remembered(reference, changes):
        assert len(reference.norms) == 8
        return memory

    for expected in (1 + len(SOME), 1):
        ran.clear()
        assert match_with_rounding(loop, in_fp32, "fp16", remembered=remembered) is None
        assert len(ran) == expected, "only the reference is run again"
