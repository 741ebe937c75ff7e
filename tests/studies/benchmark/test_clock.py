"""Times are taken in turn and compared round by round."""

import pytest

from gradparity.studies.benchmark.clock import in_turn, ratio, spread


def test_each_way_is_warmed_up_once_and_then_takes_its_turn_at_the_front():
    order, ticks = [], []
    ways = [lambda name=name: order.append(name) or {name: 1.0} for name in "abc"]
    seconds = in_turn(ways, 3, lambda: ticks.append(None))
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert seconds == {name: [1.0] * 3 for name in "abc"}
    assert len(ticks) == 3


def test_a_machine_that_slows_down_for_a_while_leaves_the_ratio_alone():
    base, twice = [1.0, 10.0, 1.0], [2.0, 20.0, 2.0]
    assert ratio(twice, base).median == ratio(twice, base).low == ratio(twice, base).high == 2
    assert ratio([2.0, 2.0, 20.0], base).high > 2, "not so where rounds are mixed up"


def test_a_spread_needs_two_figures():
    assert spread([1.0, 3.0]).median == 2.0
    with pytest.raises(ValueError, match="data point"):
        spread([])
