"""No right refactoring of the reference is called a fault, in any precision."""

from dataclasses import replace
from functools import partial

import pytest
from rich.console import Console

import loops
import peoples_loops
import refactored_gradients
import refactored_shapes
import refactored_steps
from gradparity.auditing.finding import RuleFinding, RuleVerdict
from gradparity.auditing.rules.schedules import NEVER_STEPPED
from gradparity.auditing.watching.user_lines import NOWHERE
from gradparity.check import check_loop
from gradparity.check.check_loop import check
from gradparity.check.presentation.report import headline, show
from gradparity.check.presentation.report_as_json import as_json
from gradparity.check.running.audited import AuditedLoop
from gradparity.check.running.user_loop import call_by_name
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


def test_what_is_wrong_in_an_identical_loop_is_said_below_the_verdict(capsys):
    """The reference with the same optimizers makes the same mistake, so the verdict cannot show it."""
    loop = next(loop for loop in RIGHT if loop.__name__ == WRONG_IN_FP16)
    result = check(partial(call_by_name, loop, "loop"), "loop", "fp16", quiet=True)
    show(result, Console(width=1000))
    verdict, announced, finding, line, *_ = capsys.readouterr().out.splitlines()
    assert (result.code, verdict.startswith("Identical: ")) == (0, True)
    assert announced.startswith("An audit of the loop's own run found what is wrong in it")
    assert finding.startswith("GP803 ")
    assert line.endswith("scaler.step(optimizer)")
    assert [(one["code"], one["verdict"]) for one in as_json(result)["audit"]] == [("GP803", "wrong")]


def test_what_is_only_unusual_is_not_said_of_a_loop_that_passes(capsys):
    result = check(partial(call_by_name, loops.example, "loop"), "loop", "fp16", quiet=True)
    unusual = RuleFinding(NEVER_STEPPED, RuleVerdict.UNUSUAL, "rare", NOWHERE)
    show(replace(result, probe=replace(result.probe, audit=AuditedLoop((unusual,)))), Console(width=1000))
    assert "rare" not in capsys.readouterr().out


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
