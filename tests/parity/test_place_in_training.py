"""Places are ordered as a training reaches them, and are compared as values."""

from itertools import pairwise

import pytest

from gradparity.parity.lockstep import side_by_side
from gradparity.parity.place_in_training import END, START, Place
from gradparity.training import Moment, Phase

IN_ORDER = [
    START,
    Place(0, 0, Phase.FORWARD),
    Place(0, 0, Phase.ACCUMULATED),
    Place(0, 1, Phase.FORWARD),
    Place(0, None, Phase.UNSCALED),
    Place(0, None, Phase.STEPPED),
    Place(1, 0, Phase.FORWARD),
    Place(10, None, Phase.CLIPPED),
    END,
]


def test_places_are_in_the_order_of_a_training():
    assert sorted({*IN_ORDER}) == IN_ORDER
    assert all(one < other and not other <= one for one, other in pairwise(IN_ORDER))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (START, "before the first step"),
        (Place(4, 1, Phase.ACCUMULATED), "step 4, microbatch 1, accumulated"),
        (Place(4, None, Phase.CLIPPED), "step 4, clipped"),
        (END, "the end"),
    ],
)
def test_a_place_prints_as_words(place, words):
    assert str(place) == words


def test_only_start_and_end_are_in_no_step():
    assert [place for place in IN_ORDER if not place.in_a_step] == [START, END]


def test_the_place_of_a_moment_is_that_of_its_step_and_phase():
    assert Place.of(3, Moment(Phase.FORWARD, 2)) == Place(3, 2, Phase.FORWARD)
    assert Place.of(3, Moment(Phase.UNSCALED)) == Place(3, None, Phase.UNSCALED)


def test_a_place_that_one_run_does_not_pass_through_is_paired_with_none():
    one, other = IN_ORDER[1:6], [IN_ORDER[1], *IN_ORDER[3:7]]
    pairs = list(side_by_side(((p, "one") for p in one), ((p, "other") for p in other)))
    assert [place for place, _, _ in pairs] == IN_ORDER[1:7]
    assert [place for place, a, b in pairs if a is None] == [IN_ORDER[6]]
    assert [place for place, a, b in pairs if b is None] == [IN_ORDER[2]]
