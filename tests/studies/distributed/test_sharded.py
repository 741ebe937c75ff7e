"""FSDP2 on two and three ranks: what the manual route can do, and what it cannot."""

import pytest

from gradparity.processes.launch import launch
from gradparity.studies.distributed.sharded_trial import measure_sharded


@pytest.fixture(scope="module")
def two():
    return launch(measure_sharded, 2, seconds=120)


def test_the_parts_that_work_on_sharded_parameters_are_known(two):
    assert [measured.works for measured in two[0]] == [True, False, False, False, False, True, True, False, True]
    for a, b in zip(*two, strict=True):
        assert (a.what, a.works) == (b.what, b.works)


def test_a_part_that_does_not_work_raises_or_does_nothing(two):
    _, shards, unused, into, whole, _, _, clip, _ = two[1]
    assert "appears to not have been used in the graph" in shards.seen
    assert unused.seen == into.seen == "None for all, silently"
    assert whole.seen == "this rank's own gradients, not averaged"
    assert clip.seen.startswith("a different norm on each rank")


def test_on_three_ranks_only_the_order_of_sums_differs():
    for found in launch(measure_sharded, 3, seconds=120):
        backward, *others = found
        by_hand = others[4]
        for measured in (backward, by_hand):
            assert not measured.works
            assert "up to rounding" in measured.seen
        assert [m.works for m in others[5:]] == [True, False, True]
