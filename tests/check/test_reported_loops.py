"""Loops of recent bug reports, as others would write them, are named like the faults of the dictionary."""

import pytest
from loops_of_reports import REPORTED, trained

from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.running.observe import observe, observe_reference
from gradparity.faults import stress_scenario
from stressed import PRECISION, known, look_up, see

pytestmark = pytest.mark.processor


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_without_a_fault_the_loop_is_identical(precision):
    assert observe(trained(), stress_scenario.build, precision) == observe_reference([], precision)


@pytest.mark.parametrize("name", REPORTED)
def test_a_loop_of_a_report_is_named(name):
    found = look_up(observe(REPORTED[name], stress_scenario.build, PRECISION), known(None), see)
    assert (found.match, [fault.name for fault in found.faults]) == (Match.FAULT, [name])


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("name", REPORTED)
def test_in_other_precisions_it_behaves_like_its_fault_too(name, precision):
    assert observe(REPORTED[name], stress_scenario.build, precision) == known(name, precision)
