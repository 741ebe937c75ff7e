"""No right refactoring of the reference is called a fault, in any precision."""

from functools import partial

import pytest

import peoples_loops
import refactored_gradients
import refactored_shapes
import refactored_steps
from gradparity.check import check_loop
from gradparity.check.check_loop import check
from gradparity.check.report import headline
from gradparity.check.user_loop import call_by_name
from gradparity.training import PRECISIONS

IN_FULL_PRECISION = (
    "one_batch_a_step",
    "with_its_own_threshold",
    "two_microbatches_a_step",
    "with_sgd_of_its_own",
    "with_its_own_scheduler",
)
"""Loops without autocast."""

WRONG_IN_FP16 = "two_adams"
"""One norm over two optimizers: if it is infinite, the clip writes NaN, and the optimizer without overflow steps."""

QUICK = (
    "into_given_inputs",
    "clipped_over_finite_norms",
    "without_a_scaler",
    "with_a_scaler_of_its_own",
    "compiled_by_inductor",
    "shuffled_by_a_data_loader",
    "two_adams_with_schedules",
    "an_optimizer_for_each_parameter",
)

RIGHT = [
    loop for some in (peoples_loops, refactored_gradients, refactored_steps, refactored_shapes) for loop in some.RIGHT
]

CASES = [
    pytest.param(loop, precision, id=f"{loop.__name__}-{precision}", marks=pytest.mark.slow)
    for loop in RIGHT
    for precision in (("fp32", "fp64") if loop.__name__ in IN_FULL_PRECISION else PRECISIONS)
    if (loop.__name__, precision) != (WRONG_IN_FP16, "fp16")
]


def test_the_table_has_forty_loops():
    assert len({loop.__name__ for loop in RIGHT}) >= 40


def assert_right(loop, precision):
    result = check(partial(call_by_name, loop, loop.__name__), loop.__name__, precision, quiet=True)
    assert result.passed, headline(result)
    assert not [finding.sentence for finding in result.probe.audit.findings if finding.verdict == "wrong"]


@pytest.mark.parametrize("loop", [loop for loop in RIGHT if loop.__name__ in QUICK], ids=lambda loop: loop.__name__)
def test_no_right_loop_is_called_a_fault(loop):
    assert_right(loop, "fp16")


@pytest.mark.parametrize(("loop", "precision"), CASES)
def test_no_right_loop_is_called_a_fault_in_any_precision(loop, precision, monkeypatch):
    """Without the dictionary, whose lookup takes most of the time: it is asked only if the reference differs."""
    monkeypatch.setattr(check_loop, "look_up", partial(check_loop.look_up, known={}))
    assert_right(loop, precision)
