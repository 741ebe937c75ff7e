"""Two and more faults of a loop are found among the likely sets, without a run of most others."""

import pytest

import loops
from gradparity.check.lookup import several_faults
from gradparity.check.lookup.fault_lookup import Match, look_up
from gradparity.check.running.observe import observe, observe_reference
from gradparity.check.running.user_loop import call_by_name
from gradparity.faults import FAULTS, stress_scenario
from stressed import PRECISION, known


def lookup(loop):
    """The finding, and the sets of more than one fault that were run for it."""
    run = list[set[str]]()

    def see(faults, expected):
        if len(faults) == 1 and faults[0].name in FAULTS:
            return known(faults[0].name)
        run.append({fault.name for fault in faults})
        return observe_reference(faults, PRECISION, expected)

    return look_up(loop, known(None), see, memory={}), run


@pytest.mark.slow
def test_three_faults_that_show_where_they_are_documented_to_show_are_found_without_other_sets():
    names = {"clip-before-unscale", "zero-grad-missing", "schedule-advanced-on-skipped-steps"}
    loop = observe(call_by_name(loops.three_things_wrong, "loop"), stress_scenario.build, PRECISION)
    found, run = lookup(loop)
    assert (found.match, {fault.name for fault in found.faults}) == (Match.PAIR, names)
    assert len(run) < 100, "there are 22,366 pairs"


@pytest.mark.slow
def test_a_fault_that_shows_elsewhere_than_documented_is_added_too(monkeypatch):
    """Of a loop that begins like a fault, a few pairs of other faults are tried at most."""
    monkeypatch.setattr(several_faults, "_MOST_AFTER", 0)
    names = {"only-one-group-scheduled", "overflow-looked-for-in-some-parameters-only", "stepped-twice"}
    found, _ = lookup(observe_reference([FAULTS[name] for name in sorted(names)], PRECISION))
    assert (found.match, {fault.name for fault in found.faults}) == (Match.PAIR, names)
