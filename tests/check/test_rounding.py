"""A correct loop with different rounding is recognized, and no fault is taken for rounding."""

import pytest
import torch

import peoples_loops
from gradparity.check.lookup.rounding import CLOSE_IN_FP32, NOT_FAR, is_close, match_with_rounding, overflows_apart
from gradparity.check.running.observe import observe, observe_reference
from gradparity.check.running.user_loop import call_by_name
from gradparity.cli.check import EXAMPLE
from gradparity.faults import FAULTS, stress_scenario
from stressed import known


def example_with(right, wrong):
    assert EXAMPLE.count(right) == 1
    written = {"torch": torch}
    exec(EXAMPLE.replace(right, wrong), written)
    return written["train"]


def explained(loop):
    loop_in_fp16, in_fp32 = (observe(loop, stress_scenario.build, precision) for precision in ("fp16", "fp32"))
    return match_with_rounding(loop_in_fp16, in_fp32, "fp16")


def test_a_correct_loop_with_its_own_rounding_matches_the_reference():
    loop = example_with("= loss(model, batch) / tokens", "= loss(model, batch) / 3 / tokens * 3")
    assert explained(loop) == ()


def test_a_fault_with_additional_rounding_matches_that_fault():
    loop = example_with("= loss(model, batch) / tokens", "= loss(model, batch) / tokens * len(window) / 3")
    assert explained(loop) == (FAULTS["partial-window-divided-by-full-k"],)


@pytest.mark.parametrize(
    "name",
    ["clip-before-unscale", "unused-parameters-decayed", "zeros-instead-of-none", "always-scaled-to-the-threshold"],
)
def test_a_fault_is_not_taken_for_rounding(name):
    in_fp32 = is_close(observe_reference([FAULTS[name]], "fp32"), (), "fp32", CLOSE_IN_FP32)
    assert not (in_fp32 and is_close(known(name), (), "fp16", NOT_FAR["fp16"]))


def test_rounding_alone_is_taken_for_rounding():
    assert is_close(known("summed-loss"), (), "fp16", NOT_FAR["fp16"])
    assert is_close(observe_reference([FAULTS["summed-loss"]], "fp32"), (), "fp32", CLOSE_IN_FP32)


def overflows(loop, reference_overflows=False):
    in_fp16, in_fp32 = (
        observe(call_by_name(loop, "loop"), stress_scenario.build, precision) for precision in ("fp16", "fp32")
    )
    loop, reference = (known(None), in_fp16) if reference_overflows else (in_fp16, known(None))
    return overflows_apart(loop, reference, in_fp32, "fp16")


def test_a_loop_that_overflows_where_the_reference_does_not_is_otherwise_the_same():
    assert overflows(peoples_loops.divided_after_the_backward) == (0, True)
    assert overflows(peoples_loops.divided_after_the_backward, reference_overflows=True) == (0, False)


def twice_as_large(model, optimizer, batches, loss, scaler, scheduler, plan):
    peoples_loops.divided_after_the_backward(
        model, optimizer, batches, lambda *given: 2 * loss(*given), scaler, scheduler, plan
    )


def test_an_overflow_excuses_no_other_difference():
    assert overflows(twice_as_large) is None
    assert overflows(peoples_loops.clipped_by_hand) is None
