"""What the routes need of memory is the same in every run, and is pinned as relations between them."""

from dataclasses import replace

import pytest
from torch import nn

from gradparity.studies.benchmark.routes import _costs_of
from gradparity.studies.benchmark.timed_models import config, wide_mlp

LAYERS = 20
ONE = 1 / LAYERS
"""The share of a layer, which is as large as any other."""


def layers():
    between = [nn.Linear(64, 64) for _ in range(LAYERS)]
    return nn.Sequential(nn.Flatten(), *between, nn.Linear(64, 10))


def peaks(k, precision="fp32"):
    """In sizes of the parameters, by route."""
    task = replace(wide_mlp(), build=layers)
    found = _costs_of("layers", task, config(k=k, microbatch=1, precision=precision), 2, lambda: None)
    return {one.route: one.peak for one in found}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_one_microbatch_all_routes_need_the_same(precision):
    found = peaks(1, precision)
    assert found["manual"] == pytest.approx(found["backward"], abs=ONE)
    assert found["frugal"] == pytest.approx(found["backward"], abs=ONE)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_with_four_microbatches_frugal_needs_the_memory_of_backward(precision):
    found = peaks(4, precision)
    assert found["frugal"] == pytest.approx(found["backward"], abs=ONE)


def test_with_four_the_manual_one_holds_two_sets_of_gradients_and_backward_little_more_than_one():
    found = peaks(4)
    assert found["manual"] == pytest.approx(2, abs=ONE)
    assert found["backward"] == pytest.approx(1, abs=4 * ONE)
