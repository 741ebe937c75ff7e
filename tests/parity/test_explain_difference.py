"""The words for a first difference, and that they are not used where they do not fit."""

import pytest

from gradparity.parity.difference_kinds import Kind
from gradparity.parity.explain_difference import explain
from gradparity.parity.figures import Figures
from gradparity.parity.likely_cause import common_ratio
from gradparity.parity.lockstep import ALL, STOPS, Comparison
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.place_in_training import START, Place
from gradparity.parity.state import OWN, Part
from gradparity.training import Moment, Phase


def figures(relative_norm=1.0, norm_ratio=1.0, cosine=1.0):
    return Figures(4096, 1053, 128, 2, 2.4e-4, 0.5, relative_norm, norm_ratio, cosine)


def gradient(name="w", **given):
    return Mismatch(Part.GRADIENTS, name, Kind.BITS, "a tensor", "a tensor", figures(**given))


def told(*mismatches, phase=Phase.UNSCALED, microbatch=None, step=3, scale=1024.0):
    return told_at(Place(step, microbatch, phase), *mismatches, scale=scale)


def told_at(place, *mismatches, scale=1024.0):
    moment = Moment(place.phase, place.microbatch)
    return explain(Comparison(place, moment, moment, {}, 0, list(mismatches), {}, scale))


def test_where_and_how_much():
    words = told(gradient(relative_norm=3.7e-8), gradient("v"), phase=Phase.ACCUMULATED, microbatch=2)
    assert words.splitlines()[0] == "At step 3, microbatch 2, phase accumulated, the gradient of w differs."
    assert "1,053 of 4,096 elements are up to 128 ULP apart" in words
    assert "relative to its norm 3.7e-08" in words
    assert "At this phase, 1 more value differs." in words


def test_before_the_first_step():
    mismatch = Mismatch(Part.PARAMETERS, "w", Kind.SHAPE, "(2,)", "(3,)")
    assert told_at(START, mismatch) == (
        "Before the first step, the parameter w differs in shape: (2,) in the reference and (3,) in the candidate."
    )


def test_rounding_is_called_rounding_only_while_it_is_small():
    assert "As small as rounding" in told(gradient(relative_norm=9e-5))
    assert "rounding" not in told(gradient(relative_norm=9e-5), gradient("v", relative_norm=2e-4))


def test_one_factor_for_all_gradients_is_called_a_length():
    assert "0.001 times its length" in told(gradient(norm_ratio=0.001), gradient("v", norm_ratio=0.001))
    assert "length" not in told(gradient(norm_ratio=0.001), gradient("v", norm_ratio=0.002))
    assert "length" not in told(gradient(norm_ratio=0.001, cosine=0.9))


def clipped_after(unscaled, clipped, scale=1024.0):
    """The words on gradients that differ after unscale_, once those after clipping have been compared too."""
    moment = Moment(Phase.UNSCALED)
    first, later = (
        Comparison(Place(3, None, phase), moment, moment, {}, 0, [gradient(norm_ratio=ratio)], {}, scale)
        for phase, ratio in ((Phase.UNSCALED, unscaled), (Phase.CLIPPED, clipped))
    )
    return explain(first, later)


def test_clipping_scaled_gradients_is_reported_only_if_both_phases_show_it():
    assert "multiplied by the loss scale of 1024" in clipped_after(0.0002, 1 / 1024)
    assert "multiplied" not in told(gradient(norm_ratio=0.0002)), "not before the clipped ones were compared"
    assert "multiplied" not in clipped_after(0.5, 0.5), "halved by something else"
    assert "multiplied" not in clipped_after(1 / 1024, 1 / 1024), "divided by the scale twice"
    assert "multiplied" not in clipped_after(0.0002, 1 / 1024, scale=1.0)


def test_a_factor_is_measured_and_its_cause_is_not_guessed():
    for phase in (Phase.ACCUMULATED, Phase.CLIPPED):
        words = told(gradient(norm_ratio=3.0), phase=phase, microbatch=0)
        assert words.endswith("3 times its length.")


def test_rounding_in_double_precision_is_smaller():
    assert "rounding" not in told(
        Mismatch(Part.GRADIENTS, "w", Kind.BITS, "", "", figures(relative_norm=1e-6)._replace(median_ulp=2**32))
    )


def test_left_over_gradients_beside_scaled_ones_are_never_called_rounding():
    small = gradient(relative_norm=1e-6)
    assert "rounding" not in told(small, phase=Phase.ACCUMULATED, microbatch=0)
    assert "rounding" in told(small, phase=Phase.ACCUMULATED, microbatch=0, scale=1.0)


def test_a_loss_that_differs_with_a_buffer_is_not_called_rounding():
    loss = Mismatch(Part.LOSS, "loss", Kind.BITS, "1", "2", figures(relative_norm=1e-6))
    assert "rounding" in told(loss, phase=Phase.FORWARD)
    assert "rounding" not in told(loss, Mismatch(Part.BUFFERS, "mean", Kind.BITS, "1", "2"), phase=Phase.FORWARD)


def test_the_cause_comes_before_the_loss():
    loss = Mismatch(Part.LOSS, "loss", Kind.BITS, "1", "2")
    for cause in (
        Mismatch(Part.PARAMETERS, "w", Kind.BITS, "1", "2"),
        Mismatch(Part.SCALER, "scale", Kind.VALUE, "1", "2"),
    ):
        assert cause.name in told(loss, cause, phase=Phase.FORWARD).splitlines()[0]
    counter = Mismatch(Part.SCALER, "_growth_tracker", Kind.VALUE, "1", "2")
    assert "the loss is" in told(loss, counter, phase=Phase.FORWARD).splitlines()[0]


@pytest.mark.parametrize(
    ("mismatch", "words"),
    [
        (Mismatch(Part.ALIASING, "w.grad", Kind.VALUE, OWN, "memory of v.grad"), "copy it before assigning .grad"),
        (
            Mismatch(Part.ALIASING, "w.grad", Kind.VALUE, "memory of v.grad", OWN),
            "Here the reference shares memory",
        ),
        (Mismatch(Part.GRADIENTS, "w", Kind.PRESENCE, "None", "zeros of shape (2,)"), "None is not zero"),
        (Mismatch(Part.GRADIENTS, "w", Kind.PRESENCE, "a tensor", "None"), "No gradient reached this parameter"),
        (Mismatch(Part.GRADIENTS, "w", Kind.STRIDES, "(1, 2)", "(2, 1)"), "memory order"),
        (Mismatch(Part.RNG, "cpu", Kind.BITS, "", ""), "in a different state"),
    ],
)
def test_each_cause_has_its_words(mismatch, words):
    assert words in told(mismatch).splitlines()[-1]


def test_a_different_loss_is_reported_with_factor_and_sign():
    for ratio, cosine, words in ((2 / 3, 1.0, "0.667 times the reference's"), (1.0, -1.0, "the opposite sign")):
        size = figures(norm_ratio=ratio, cosine=cosine)._replace(elements=1)
        assert words in told(Mismatch(Part.LOSS, "loss", Kind.BITS, "1", "2", size), phase=Phase.FORWARD)


@pytest.mark.parametrize(
    ("reference", "candidate", "words"),
    [
        (
            OWN,
            "memory of v.grad",
            "w.grad has its own memory in the reference and shares the memory of v.grad in the candidate.",
        ),
        (
            "memory of v.grad",
            "absent",
            "w.grad shares the memory of v.grad in the reference and is absent in the candidate.",
        ),
    ],
)
def test_shared_memory_is_reported_with_its_owner(reference, candidate, words):
    mismatch = Mismatch(Part.ALIASING, "w.grad", Kind.VALUE, reference, candidate)
    assert told(mismatch).splitlines()[0] == f"At step 3, phase unscaled, {words}"


def test_a_phase_that_only_one_run_reaches_is_reported_as_such():
    here = Mismatch(Part.OPTIMIZER, ALL, Kind.PRESENCE, STOPS, "does not")
    assert told(here) == "At step 3, phase unscaled, only the reference reaches this phase."
    there = Mismatch(Part.OPTIMIZER, ALL, Kind.PRESENCE, "does not", STOPS)
    assert "only the candidate reaches" in told(there)


@pytest.mark.parametrize(
    "mismatch",
    [
        Mismatch(Part.OPTIMIZER, "group 0.lr", Kind.VALUE, "0.1", "0.2"),
        Mismatch(Part.GRADIENTS, "w", Kind.PRESENCE, "None", "a tensor of shape (2,)"),
        Mismatch(Part.SCALER, "scale", Kind.VALUE, "1", "2"),
        Mismatch(Part.SCHEDULER, "last_epoch", Kind.VALUE, "1", "2"),
        Mismatch(Part.ALIASING, "w.grad", Kind.VALUE, "memory of u.grad", "memory of v.grad"),
        Mismatch(Part.GRADIENTS, "w", Kind.LAYOUT, "dense", "sparse"),
    ],
)
def test_without_evidence_no_cause_is_given(mismatch):
    assert len(told(mismatch, phase=Phase.STEPPED).splitlines()) == 1


def test_where_nothing_is_known_nothing_is_claimed():
    assert len(told(Mismatch(Part.BUFFERS, "mean", Kind.DTYPE, "float32", "float64")).splitlines()) == 1


def test_a_zero_reference_has_no_ratio():
    assert common_ratio([gradient(norm_ratio=float("inf"))]) is None
    assert common_ratio([gradient(cosine=float("nan"))]) is None
