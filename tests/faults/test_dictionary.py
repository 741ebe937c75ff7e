"""Every fault is what it says it is: it shows where it says, raises if it says so, and no two are the same unsaid."""

import re
from collections import defaultdict

import pytest

from gradparity.diagnosis.lookup import first_shown
from gradparity.faults import FAULTS, Kind
from gradparity.faults.patched import REFERENCE, ClashError, patched, reference_with
from gradparity.training import manual, train_step
from stressed import known

ONE_AND_THE_SAME = [
    # Without unscale_, scaler.step unscales after the clip.
    {"clip-before-unscale", "clip-without-unscale"},
    # Nobody reads the gradients after the step; an exhausted generator holds no parameter to clip.
    {"clip-after-step", "clipping-missing", "clip-an-exhausted-generator"},
    # Two ways to cut the same graph at the same place.
    {"block-without-grad", "block-detached"},
    # A weight gets no gradient, whether it or its use is cut off.
    {"weight-without-gradient", "layer-frozen"},
]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_first_shows_where_it_says(name):
    assert FAULTS[name].first == first_shown(known(None), known(name))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_raises_if_and_only_if_it_says_so(name):
    assert (known(name).error is not None) == (FAULTS[name].kind == Kind.RAISES)


def test_each_fault_differs_from_the_reference_and_from_all_others_but_those_that_are_proved_the_same():
    alike = defaultdict(set)
    for name in FAULTS:
        alike[tuple(known(name).looks), known(name).error].add(name)
    assert (tuple(known(None).looks), None) not in alike
    assert sorted(map(sorted, ONE_AND_THE_SAME)) == sorted(sorted(same) for same in alike.values() if len(same) > 1)


def test_there_are_enough_and_each_says_what_it_is():
    assert len(FAULTS) >= 70
    for name, fault in FAULTS.items():
        assert fault.name == name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert re.fullmatch(r"\w.*\.", fault.symptom)
        assert re.fullmatch(r".*[^.]", fault.needs)
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+|torch/.+\.(h|py)", source) for source in fault.sources)
        assert set(fault.changes) <= set(REFERENCE)


def test_two_faults_that_change_the_same_line_clash():
    with pytest.raises(ClashError, match="two faults change line"):
        reference_with([FAULTS["divided-twice"], FAULTS["not-divided-at-all"]])


def test_a_fault_that_takes_away_what_another_hangs_on_clashes_with_it():
    with pytest.raises(ClashError, match="no sentence of Python"):
        reference_with([FAULTS["schedule-advanced-twice"], FAULTS["schedule-advanced-on-skipped-steps"]])


def test_two_faults_that_go_together_are_both_in_the_loop():
    two = [FAULTS["clip-before-unscale"], FAULTS["schedule-never-advanced"]]
    source = patched(train_step, *(fault.changes[train_step] for fault in two))
    assert source.index("run.clip(") < source.index("run.scaler.unscale_(")
    assert "run.scheduler.step()" not in source


def test_faults_of_the_manual_route_take_it():
    assert reference_with([FAULTS["naive"]])["backward"].__name__ == manual.__name__
    assert reference_with([FAULTS["divided-twice"]])["backward"].__name__ == "backward"


def test_lines_that_the_reference_no_longer_holds_are_refused():
    with pytest.raises(ValueError, match="0 times, not once"):
        patched(train_step, "-    run.scaler.unscale(run)\n")
    with pytest.raises(ValueError, match="4 times, not once"):
        patched(train_step, " \n")  # an empty line
