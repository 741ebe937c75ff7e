"""Three loops with one thing wrong, each caught where it goes wrong, and told in words that fit."""

from itertools import product

import pytest

from gradparity.faults import FAULTS, loop_with
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.studies.train_two_ways.config import ClipConfig, OptimizerConfig
from gradparity.training import Phase, manual, train_step
from small import small_config, verdict_of

pytestmark = pytest.mark.processor


def first_of(candidate, precision="fp32", **fields):
    fields = {"task": "transformer", "clip": ClipConfig(by="norm", threshold=0.05), **fields}
    return verdict_of(small_config(candidate=candidate, precision=precision, **fields))


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("k", [1, 3])
def test_naive_wiring_is_caught_at_its_first_accumulation_by_shared_memory(precision, k):
    verdict = first_of("naive", precision, accumulation_steps=k)
    found, mismatch = verdict.first
    assert found.place == Place(0, 0, Phase.ACCUMULATED)
    assert (mismatch.part, mismatch.kind) == (Part.ALIASING, Kind.VALUE)
    assert {mismatch.name, mismatch.candidate} in (
        {"position_correction.grad", "memory of position.grad"},
        {"position.grad", "memory of position_correction.grad"},
    )
    assert "At step 0, microbatch 0, phase accumulated" in verdict.explanation
    assert "the other changes too" in verdict.explanation
    assert verdict.cells[Phase.CLIPPED, Part.GRADIENTS].differing > 0, "clipping in place then corrupts both"


def test_naive_wiring_does_no_harm_where_no_gradient_is_shared():
    assert first_of("naive", task="digits_mlp").parity


# Not the MLP in half precision: fp32 adds the half-precision gradients of three microbatches without any rounding.
@pytest.mark.parametrize(
    ("task", "precision"),
    [("digits_mlp", "fp64"), ("digits_mlp", "fp32"), *product(["digits_cnn", "transformer"], ["fp64", "fp32", "bf16"])],
)
def test_a_summed_loss_is_caught_at_the_end_of_the_first_window_as_rounding(task, precision):
    verdict = first_of("summed-loss", precision, task=task)
    found, mismatch = verdict.first
    assert found.place == Place(0, 2, Phase.ACCUMULATED)
    assert (mismatch.part, mismatch.kind) == (Part.GRADIENTS, Kind.BITS)
    assert "As small as rounding" in verdict.explanation
    assert verdict.uncompared == {Phase.ACCUMULATED: 20 - 7}


def test_one_gradient_of_a_window_of_one_microbatch_is_the_same_bits():
    assert first_of("summed-loss", accumulation_steps=1).parity


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("task", ["digits_mlp", "digits_cnn", "transformer"])
def test_clipping_scaled_gradients_is_caught_at_unscaled_and_reported_as_such(task, optimizer):
    verdict = first_of("clip-before-unscale", "fp16", task=task, optimizer=OptimizerConfig(name=optimizer))
    found, mismatch = verdict.first
    assert found.place == Place(0, None, Phase.UNSCALED)
    assert (mismatch.part, mismatch.kind) == (Part.GRADIENTS, Kind.BITS)
    assert mismatch.figures.cosine == pytest.approx(1)
    assert "has the reference's direction" in verdict.explanation
    assert "still multiplied by the loss scale of 16" in verdict.explanation


def test_clipping_before_unscale_does_no_harm_where_nothing_is_scaled():
    verdict = first_of("clip-before-unscale", "fp32")
    found, mismatch = verdict.first
    assert (found.place.phase, mismatch.part) == (Phase.UNSCALED, Part.GRADIENTS), "it is seen to clip a phase early"
    assert verdict.cells[Phase.CLIPPED, Part.GRADIENTS].differing == 0
    assert verdict.cells[Phase.STEPPED, Part.PARAMETERS].differing == 0


def test_a_fault_of_the_step_leaves_the_route_alone_and_the_other_way_round():
    # By the names that the code uses, in order: the same source compiles to other bytes beside an ``import torch``.
    step, route = loop_with(FAULTS["naive"])
    assert (step.__code__.co_names, route.__code__.co_names) != (train_step.__code__.co_names, manual.__code__.co_names)
    assert step.__code__.co_names == train_step.__code__.co_names
    step, route = loop_with(FAULTS["clip-before-unscale"])
    assert step.__code__.co_names != train_step.__code__.co_names
    assert route.__code__.co_names == manual.__code__.co_names
