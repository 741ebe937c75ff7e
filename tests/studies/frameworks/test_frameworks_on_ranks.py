"""Frameworks on two ranks: negative controls for every loop, and causes of differences looked into.

``test_framework_results.py`` asserts each cell of the table.
"""

import multiprocessing
import os
import tempfile

import pytest
import torch

import two_ranks
from gradparity.parity.state import Part
from gradparity.processes.launch import launch
from gradparity.studies.frameworks.on_ranks import ON_RANKS, RANKS, of_all_ranks, outcomes_on_ranks
from gradparity.studies.frameworks.result import cell, measured
from gradparity.studies.frameworks.watch import FrameworkOutcome

RIGHT = [name for name in ON_RANKS if name != "Lightning, autograd"]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each rank has found."""
    folder = str(tmp_path_factory.mktemp("ranks"))
    found = launch(two_ranks.everything, RANKS, RIGHT, folder, seconds=300)
    assert [of_rank["temporary"] for of_rank in found] == [folder, folder], "which is removed when all have ended"
    return found


@pytest.mark.parametrize("name", RIGHT)
def test_a_different_clipping_threshold_is_seen_on_every_rank(ranks, name):
    for found in ranks:
        right, wrong = found["thresholds"][name]
        assert right.identical
        at, mismatch = wrong.verdict.first
        assert (at.place.step, at.place.phase.name, mismatch.part) == (0, "CLIPPED", Part.GRADIENTS)
        assert mismatch.figures.norm_ratio == pytest.approx(1.2, rel=1e-3)
    assert of_all_ranks([found["thresholds"][name][1] for found in ranks]).apart is None, "all ranks are wrong alike"


def test_one_rank_with_a_different_learning_rate_is_named_and_diverges(ranks):
    found = of_all_ranks([found["rate"] for found in ranks])
    assert (found.ranks, found.apart) == ((1,), 0)
    assert cell(found) == "rank 1\nstep 0 clipped\nlr ×2\nranks part"
    assert measured(found).startswith("On rank 1: At step 0, phase clipped, ")
    assert measured(found).endswith("After step 0 the ranks are no longer one model.")


def test_one_rank_with_other_data_is_named_though_all_differ_from_then_on(ranks):
    found = of_all_ranks([found["data"] for found in ranks])
    assert (found.ranks, found.apart) == ((1,), None)
    assert cell(found).startswith("rank 1\nstep 0 forward\nloss ")


def test_an_exchange_after_every_microbatch_is_the_same_update_but_for_rounding(ranks):
    for found in ranks:
        loop, reference = (torch.tensor(gradients, dtype=torch.float64) for gradients in found["gradients"])
        assert 0 < (loop - reference).norm() < 1e-6 * reference.norm()


def test_by_hand_it_is_the_step_with_ddp_if_all_start_from_the_weights_of_rank_0(ranks):
    right, wrong = (of_all_ranks(list(each)) for each in zip(*(found["by hand"] for found in ranks), strict=True))
    assert right.identical
    assert (wrong.ranks, wrong.apart) == ((1,), 0)
    assert cell(wrong).startswith("rank 1\nstep 0 forward\nparameters ")


def test_where_one_rank_refuses_there_is_no_verdict():
    refused = FrameworkOutcome(None, "ValueError: not here")
    assert of_all_ranks([FrameworkOutcome(None, "not installed"), refused]).refusal == "not installed"


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = dict(os.environ)
    outcomes = outcomes_on_ranks(["Lightning, automatic"], ["2 ranks: K = 1"])
    assert outcomes["2 ranks: K = 1"]["Lightning, automatic"].identical
    assert not multiprocessing.active_children()
    assert not torch.distributed.is_initialized()
    assert dict(os.environ) == environment
    assert not list(tmp_path.iterdir())
