"""The effects of faults where they first show tell which pairs of them a loop may have."""

from itertools import combinations

import pytest

from gradparity.check.lookup.effects import EFFECT_BYTES, effect_of, may_be_both, may_hold
from gradparity.check.running.observe import Observation, observe_reference
from gradparity.faults import FAULTS
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase
from stressed import PRECISION, known

HERE, THERE = Place(0, 0, Phase.FORWARD), Place(0, 1, Phase.FORWARD)


def seen(place=HERE, **values):
    return Observation(place, frozenset((Part.GRADIENTS, name, value) for name, value in values.items()))


REFERENCE = seen(a=1.0, b=1.0, c=1.0)


def effect(**values):
    return effect_of(seen(**{"a": 1.0, "b": 1.0, "c": 1.0, **values}), REFERENCE)


def test_an_effect_is_what_differs_and_nothing_of_another_place():
    assert effect() == b""
    assert len(effect(a=2.0)) == EFFECT_BYTES
    assert len({effect(a=2.0), effect(a=3.0), effect(b=2.0), effect(a=2.0, b=2.0)}) == 4
    assert effect_of(seen(b=1.0, c=1.0), REFERENCE) != effect(a=None), "a value that is not there is not None"
    assert effect_of(seen(THERE, a=2.0, b=1.0, c=1.0), REFERENCE) is None


@pytest.mark.parametrize(
    ("whole", "one", "other", "may_be"),
    [
        (effect(a=2.0, b=2.0), effect(a=2.0), effect(b=2.0), True),
        (effect(a=3.0), effect(a=2.0), effect(a=4.0), True),
        (effect(a=3.0, b=2.0), effect(a=2.0, b=2.0), effect(a=4.0), True),
        (effect(a=2.0), effect(a=2.0), effect(b=2.0), False),
        (effect(a=2.0, b=2.0, c=2.0), effect(a=2.0), effect(b=2.0), False),
        (effect(a=3.0, b=2.0), effect(a=2.0), effect(b=2.0), False),
        (effect(a=3.0), effect(a=2.0, b=2.0), effect(a=4.0), False),
        (None, None, effect(a=2.0), True),
        (None, effect(a=2.0), effect(b=2.0), False),
        (effect(a=2.0), None, effect(a=2.0), False),
    ],
)
def test_two_faults_change_what_one_of_them_changes_and_to_its_value(whole, one, other, may_be):
    assert may_be_both(whole, one, other) == may_be_both(whole, other, one) == may_be


@pytest.mark.parametrize(
    ("whole", "one", "may"),
    [
        (effect(a=2.0, b=2.0), effect(a=3.0), True),
        (effect(b=2.0), effect(a=3.0), False),
        (None, effect(a=3.0), True),
        (effect(a=2.0), None, False),
    ],
)
def test_a_fault_with_an_unseen_one_changes_at_least_what_it_changes_alone(whole, one, may):
    assert may_hold(whole, one) == may


def test_two_faults_of_the_first_forward_have_the_effects_of_both():
    names = ("padding-trained-on", "autocast-missing", "positions-shifted", "warm-up-from-zero", "dropout-not-rescaled")

    def first(*some):
        faults = [FAULTS[name] for name in some]
        run = observe_reference(faults, PRECISION, known(None).observations)
        return effect_of(run.observations[0], known(None).observations[0])

    alone = {name: first(name) for name in names}
    assert all(alone.values())
    for one, other in combinations(names, 2):
        assert may_be_both(first(one, other), alone[one], alone[other])
    assert not may_be_both(first(names[0], names[3]), alone[names[0]], alone[names[1]])
