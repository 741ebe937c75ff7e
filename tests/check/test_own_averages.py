"""An average of the loop's own is not compared, but it has to follow once a step; the report names it."""

import os
from functools import partial

import pytest

import loops
import own_averages
from gradparity.check.check_loop import check
from gradparity.check.report import headline, remarks
from gradparity.check.user_loop import call_by_name


def checked(loop, precision="fp16"):
    return check(partial(call_by_name, loop, "loop"), "loop", precision, quiet=True)


def test_a_right_average_passes_and_is_said_not_to_be_compared():
    result = checked(own_averages.RIGHT)
    assert result.passed, headline(result)
    assert any("Not compared: ema.shadow (an average)" in line for line in remarks(result))


def test_an_average_that_follows_an_optimizer_of_the_loops_own_is_not_blamed():
    assert checked(own_averages.with_an_optimizer_of_its_own, "fp32").passed


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (own_averages.EVERY_MICROBATCH, "moves its average ema.shadow 12 times without a step in between"),
        (own_averages.SWAPPED_BACK_WRONGLY, "overwrites its average ema.shadow with the weights"),
    ],
)
def test_an_average_that_does_not_follow_once_a_step_fails(loop, words):
    result = checked(loop)
    assert result.same_updates
    assert (result.passed, result.code) == (False, 1)
    assert words in headline(result)


def with_a_mapping_that_takes_no_text(model, optimizer, batches, loss, scaler, scheduler, plan):
    import os  # it holds os.environb, whose keys are bytes

    assert os.environb is not None
    loops.example(model, optimizer, batches, loss, scaler, scheduler, plan)


@pytest.mark.skipif(not hasattr(os, "environb"), reason="this system has none")
def test_a_mapping_in_a_variable_that_takes_no_names_is_no_average():
    assert checked(with_a_mapping_that_takes_no_text).passed
