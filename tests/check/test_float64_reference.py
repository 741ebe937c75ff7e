"""The reference compared with an oracle that shares nothing with it: the gradient of one window in float64.

The oracle is itself compared with finite differences.
"""

import pytest
import torch

import loops
from gradparity.check.running import float64_reference
from gradparity.check.running.float64_reference import RELATIVE_ROUNDING, error_of_first_gradient
from gradparity.check.running.user_loop import call_by_name
from gradparity.faults import FAULTS, Fault, stress_scenario
from gradparity.faults.fault import Divergence
from gradparity.faults.patching import reference_with
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.studies.tasks import summed_loss
from gradparity.training import Phase

FIRST = slice(0, stress_scenario.ACCUMULATION_STEPS)
STEP = 1e-6
"""The step of the finite differences, too small to reach a kink of ReLU."""


def built(names=None):
    torch.manual_seed(0)
    cast = (names or reference_with([]))["build"]("fp32")
    cast.model.dropout.p = 0.0  # a float64 model would draw different masks
    return cast


def first_gradients(faults):
    """Return the gradients of the first step, before they are clipped."""
    names = reference_with(faults)
    cast = built(names)
    run = names["run_of"](
        cast.model, cast.optimizer, cast.loss, cast.scaler, cast.scheduler, cast.plan.autocast, cast.plan.max_norm
    )
    window = next(iter(names["windows"](cast.batches, cast.plan.accumulation_steps, cast.plan.count)))
    for moment in names["train_step"](run, window):
        if moment.phase == Phase.UNSCALED:
            of = cast.model.named_parameters()
            return {name: torch.zeros_like(p) if p.grad is None else p.grad.double() for name, p in of}
    raise AssertionError("it never unscaled")


def error_of(faults):
    """Return the largest relative error of a gradient, compared with the oracle."""
    gradients = first_gradients(faults)
    cast = built()
    expected = float64_reference.window_gradients(cast.model, cast.batches[FIRST])
    assert gradients.keys() == expected.keys()
    return max(float((gradients[n] - e).norm() / e.norm()) for n, e in expected.items())


def test_the_first_gradient_of_the_reference_is_that_of_the_whole_window_in_float64():
    assert error_of([]) < RELATIVE_ROUNDING


@pytest.mark.parametrize(
    "name",
    ["mean-of-microbatch-means", "padding-counted", "sequences-counted-instead-of-tokens", "not-divided-at-all",
     "divided-twice", "one-use-of-a-tied-weight-dropped", "only-the-last-microbatch-differentiated"],
)  # fmt: skip
def test_the_oracle_finds_a_wrong_normalization_and_a_wrong_graph(name):
    assert error_of([FAULTS[name]]) > 100 * RELATIVE_ROUNDING


def test_the_oracle_finds_a_loss_that_trains_on_padding():
    padding_trained_on = Fault(
        name="padding-trained-on",
        symptom="Padding is taken for the first token.",
        needs="padding",
        first=Divergence(Place(0, 0, Phase.FORWARD), Part.LOSS),
        changes={
            summed_loss: """
-    return F.cross_entropy(logits.flatten(0, -2), targets, ignore_index=PADDING, reduction="sum")
+    return F.cross_entropy(logits.flatten(0, -2), targets.clamp(min=0), reduction="sum")
"""
        },
    )
    assert error_of([padding_trained_on]) > 100 * RELATIVE_ROUNDING


def test_finite_differences_find_the_gradient_of_the_oracle():
    """Along one direction for each parameter, central differences in float64."""
    cast = built()
    gradients = float64_reference.window_gradients(cast.model, cast.batches[FIRST])
    generator = torch.Generator().manual_seed(1)
    for name, gradient in gradients.items():
        direction = torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        values = []
        for sign in (1, -1):
            model = float64_reference.in_float64(cast.model)
            with torch.no_grad():
                model.get_parameter(name).add_(sign * STEP * direction)
                values.append(float(float64_reference.window_mean(model, cast.batches[FIRST])))
        measured, expected = (values[0] - values[1]) / (2 * STEP), float((gradient * direction).sum())
        assert abs(measured - expected) < 1e-6 * max(1.0, float(gradient.norm())), name


@pytest.mark.parametrize("name", ["example", "autograd_grad_and_a_clip_by_hand", "clip_and_schedule_wrong"])
def test_the_oracle_reads_the_first_gradient_before_it_is_clipped(name):
    assert error_of_first_gradient(call_by_name(getattr(loops, name), name)) < RELATIVE_ROUNDING


@pytest.mark.parametrize("name", ["mean-of-microbatch-means", "padding-counted", "divided-twice"])
def test_the_oracle_alone_finds_a_wrong_first_gradient(name):
    assert error_of_first_gradient(reference_with([FAULTS[name]])["reference"]) > 100 * RELATIVE_ROUNDING


def test_a_loop_without_a_step_has_no_first_gradient():
    assert error_of_first_gradient(lambda **_: None) is None
