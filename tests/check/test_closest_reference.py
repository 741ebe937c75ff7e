"""Of all references that a loop may mean to be, it is compared with the one that it is closest to."""

import pytest

import peoples_loops
from gradparity.check.intended.closest_reference import closest_reference
from gradparity.check.intended.intended_reference import Intended
from gradparity.check.intended.own_learning_rates import learning_rates, with_rates
from gradparity.check.running.observe import observe, observe_reference
from gradparity.check.running.user_loop import call_by_name
from gradparity.faults import FAULTS, stress_scenario
from gradparity.parity.state import Part
from stressed import known

NO_SCHEDULE = Intended(FAULTS["schedule-never-advanced"], "without a schedule")
ONE_EPOCH = Intended(FAULTS["one-epoch-missing"], "for one epoch")
SCHEDULE_UNASKED = frozenset({Part.SCHEDULER})


@pytest.mark.parametrize("options", [[(NO_SCHEDULE,), ()], [(), (NO_SCHEDULE,)]])
def test_the_same_updates_count_more_than_the_first_difference(options):
    loop = observe(call_by_name(peoples_loops.learning_rate_by_hand, "loop"), stress_scenario.build, "fp16")
    closest = closest_reference(loop, known(None), options, "fp16", SCHEDULE_UNASKED)
    assert closest.meant == ()


@pytest.mark.parametrize("options", [[(ONE_EPOCH,), ()], [(), (ONE_EPOCH,)]])
def test_the_whole_training_counts_more_than_its_beginning(options):
    loop = observe_reference([ONE_EPOCH.change], "fp16")
    closest = closest_reference(loop, known(None), options, "fp16", frozenset())
    assert (closest.run == loop, closest.meant) == (True, (ONE_EPOCH,))


def test_an_identical_reference_counts_more_than_one_of_the_same_updates():
    plain = known(None)
    rates = Intended(with_rates(learning_rates(plain)), "with the learning rates that it sets")
    closest = closest_reference(plain, plain, [(rates,), ()], "fp16", SCHEDULE_UNASKED)
    assert closest.meant == ()


def test_a_reference_that_cannot_be_made_is_left_out():
    clash = (Intended(FAULTS["clipping-missing"], "a"), Intended(FAULTS["clip-twice"], "b"))
    closest = closest_reference(known(None), known(None), [clash, ()], "fp16", frozenset())
    assert closest.meant == ()
