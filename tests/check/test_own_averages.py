"""An average of the weights has to follow once a step, wherever the loop keeps it; the report names it."""

import os
from functools import partial

import pytest

import loops
import own_averages
from gradparity.check.check_loop import check
from gradparity.check.presentation.remarks import remarks
from gradparity.check.presentation.report import headline
from gradparity.check.running.user_loop import call_by_name

SLOW = pytest.mark.slow


def checked(loop, precision=None):
    return check(partial(call_by_name, loop, "loop"), "loop", precision, quiet=True)


FOLLOWS = "follows the weights after each step"


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (own_averages.RIGHT, f"Its average ema.shadow {FOLLOWS}, with a decay of 0.9. To have the decay judged"),
        (own_averages.IN_A_TRAINER, f"Its average trainer.callbacks[0].ema.shadow {FOLLOWS}"),
        (own_averages.GIVEN, f"Its average ema {FOLLOWS}, with a decay of 0.9."),
        pytest.param(own_averages.IN_THE_MODULE, f"Its average KEPT.shadow {FOLLOWS}", marks=SLOW),
        pytest.param(own_averages.GIVEN_BY_HAND, f"Its average ema {FOLLOWS}, with a decay of 0.9.", marks=SLOW),
        pytest.param(own_averages.WARMED_UP, f"Its average ema {FOLLOWS}, with a decay that changes.", marks=SLOW),
        pytest.param(own_averages.named_like_an_average, f"Its average shadow {FOLLOWS}", marks=SLOW),
    ],
)
def test_a_right_average_passes_and_is_described(loop, words):
    result = checked(loop)
    assert result.passed, headline(result)
    assert any(line.startswith(words) for line in remarks(result)), remarks(result)
    assert not any("Not compared" in line for line in remarks(result))


def test_an_average_that_follows_an_optimizer_of_the_loops_own_is_not_blamed():
    assert checked(own_averages.with_an_optimizer_of_its_own, "fp32").passed


@pytest.mark.parametrize(
    ("loop", "words"),
    [
        (own_averages.EVERY_MICROBATCH, "moves its average ema.shadow 12 times without a step in between"),
        (own_averages.SWAPPED_BACK_WRONGLY, "overwrites its average ema.shadow with the weights"),
        pytest.param(own_averages.GIVEN_AND_LEFT, "never moves its average ema; move it once", marks=SLOW),
        pytest.param(
            own_averages.GIVEN_EVERY_MICROBATCH, "moves its average ema 12 times without a step in between", marks=SLOW
        ),
        (own_averages.DECAY_FOR_SHARE, "moves its average ema by 0.9 of its distance to the weights after a step"),
        pytest.param(own_averages.ONLY_MATRICES, "; average all parameters", marks=SLOW),
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
