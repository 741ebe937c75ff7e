"""The words for a first difference, and that they are not used where they do not fit."""

import pytest

from gradparity.parity.compare import Kind, Mismatch
from gradparity.parity.explain import common_ratio, explain
from gradparity.parity.lockstep import ALL, START, STOPS, Comparison
from gradparity.parity.metrics import Figures
from gradparity.parity.state import OWN, Part
from gradparity.training import Moment, Phase


def figures(relative_norm=1.0, norm_ratio=1.0, cosine=1.0):
    return Figures(4096, 1053, 128, 2, 2.4e-4, 0.5, relative_norm, norm_ratio, cosine)


def gradient(name="w", **given):
    return Mismatch(Part.GRADIENTS, name, Kind.BITS, "a tensor", "a tensor", figures(**given))


def told(*mismatches, phase=Phase.UNSCALED, microbatch=None, step=3, scale=1024.0):
    moment = Moment(phase)
    return explain(Comparison(step, phase, microbatch, moment, moment, {}, 0, list(mismatches), {}, scale))


def test_where_and_how_much():
    words = told(gradient(relative_norm=3.7e-8), gradient("v"), phase=Phase.ACCUMULATED, microbatch=2)
    assert words.splitlines()[0] == "At step 3, microbatch 2, phase accumulated, the gradient of w differs in its bits."
    assert "1,053 of 4,096 elements are up to 128 ULP apart" in words
    assert "relative to its norm 3.7e-08" in words
    assert "So do 1 more values at this phase." in words


def test_before_the_first_step():
    mismatch = Mismatch(Part.PARAMETERS, "w", Kind.SHAPE, "(2,)", "(3,)")
    assert told(mismatch, step=START, phase=Phase.STEPPED) == (
        "Before the first step, the parameter w differs in shape: the reference has (2,), the candidate (3,)."
    )


def test_rounding_is_called_rounding_only_while_it_is_small():
    assert "Equal up to rounding" in told(gradient(relative_norm=9e-5))
    assert "rounding" not in told(gradient(relative_norm=9e-5), gradient("v", relative_norm=2e-4))


def test_one_factor_for_all_gradients_is_called_a_length():
    assert "0.001 times the right length" in told(gradient(norm_ratio=0.001), gradient("v", norm_ratio=0.001))
    assert "length" not in told(gradient(norm_ratio=0.001), gradient("v", norm_ratio=0.002))
    assert "length" not in told(gradient(norm_ratio=0.001, cosine=0.9))


def test_clipping_scaled_gradients_is_suspected_only_where_it_could_be():
    assert "multiplied by the scale of 1024" in told(gradient(norm_ratio=0.001))
    assert "multiplied" not in told(gradient(norm_ratio=0.001), scale=1.0)
    assert "multiplied" not in told(gradient(norm_ratio=3.0))
    assert "multiplied" not in told(gradient(norm_ratio=0.001), phase=Phase.CLIPPED)


def test_a_wrong_normalizer_is_suspected_where_gradients_accumulate():
    assert "divided by another number" in told(gradient(norm_ratio=3.0), phase=Phase.ACCUMULATED, microbatch=0)
    assert "divided by another number" not in told(gradient(norm_ratio=3.0))


@pytest.mark.parametrize(
    ("mismatch", "words"),
    [
        (Mismatch(Part.ALIASING, "w.grad", Kind.VALUE, OWN, "memory of v.grad"), "copy it before it becomes .grad"),
        (Mismatch(Part.ALIASING, "w.grad", Kind.VALUE, "memory of v.grad", OWN), "it is the reference that is wrong"),
        (Mismatch(Part.GRADIENTS, "w", Kind.PRESENCE, "None", "a tensor"), "None is not zero"),
        (Mismatch(Part.GRADIENTS, "w", Kind.PRESENCE, "a tensor", "None"), "never reached"),
        (Mismatch(Part.GRADIENTS, "w", Kind.STRIDES, "(1, 2)", "(2, 1)"), "memory order"),
        (Mismatch(Part.LOSS, "loss", Kind.BITS, "1", "2"), "The forward itself differs"),
        (Mismatch(Part.RNG, "cpu", Kind.BITS, "", ""), "another number of random values"),
        (Mismatch(Part.SCALER, "scale", Kind.VALUE, "1", "2"), "another number of times"),
        (Mismatch(Part.SCHEDULER, "last_epoch", Kind.VALUE, "1", "2"), "another number of times"),
    ],
)
def test_each_likeness_has_its_words(mismatch, words):
    assert words in told(mismatch).splitlines()[-1]


def test_a_loss_that_differs_is_told_with_its_factor():
    loss = Mismatch(Part.LOSS, "loss", Kind.BITS, "", "", figures(norm_ratio=2 / 3))
    assert "differs, by a factor of 0.6667: other data" in told(loss, phase=Phase.FORWARD, microbatch=0)


def test_a_loss_that_was_not_scaled_is_told_as_that_and_only_where_there_is_a_scale():
    loss = Mismatch(Part.LOSS, "loss", Kind.BITS, "", "", figures(norm_ratio=1 / 1024))
    assert told(loss, phase=Phase.FORWARD).endswith("The loss was not multiplied by the scale of 1024.")
    assert "not multiplied" not in told(loss, phase=Phase.FORWARD, scale=512.0)
    one = Mismatch(Part.LOSS, "loss", Kind.BITS, "", "", figures(norm_ratio=1.001))
    assert "not multiplied" not in told(one, phase=Phase.FORWARD, scale=1.0)


def test_a_phase_that_only_one_comes_to_is_told_as_that():
    here = Mismatch(Part.OPTIMIZER, ALL, Kind.PRESENCE, STOPS, "does not")
    assert told(here) == "At step 3, phase unscaled, only the reference comes to this phase."
    there = Mismatch(Part.OPTIMIZER, ALL, Kind.PRESENCE, "does not", STOPS)
    assert "only the candidate comes" in told(there)


def test_a_learning_rate_that_differs_points_at_skipped_steps():
    rate = Mismatch(Part.OPTIMIZER, "group 0.lr", Kind.VALUE, "0.1", "0.2")
    assert "after a step that was skipped" in told(rate, phase=Phase.STEPPED)


def test_where_nothing_is_known_nothing_is_claimed():
    assert len(told(Mismatch(Part.BUFFERS, "mean", Kind.DTYPE, "float32", "float64")).splitlines()) == 1


def test_a_zero_reference_has_no_ratio():
    assert common_ratio([gradient(norm_ratio=float("inf"))]) is None
    assert common_ratio([gradient(cosine=float("nan"))]) is None
