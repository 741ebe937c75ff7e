"""Every fault is what it says it is: it shows where it says, raises if it says so, and no two are the same unsaid."""

import re
from collections import defaultdict
from dataclasses import replace

import pytest

from gradparity.check.lookup.fault_lookup import first_shown
from gradparity.check.running.loop_end import EndKind
from gradparity.check.running.observe import observe_reference
from gradparity.faults import FAULTS, FaultKind
from gradparity.faults.fault import Divergence, Stop, not_before
from gradparity.faults.patching import REFERENCE_FUNCTIONS, ClashError, patched, reference_with
from gradparity.parity.place_in_training import Place
from gradparity.parity.state import Part
from gradparity.training import Phase, manual, train_step
from other_processor import OtherProcessor
from stressed import PRECISION, known

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


HIDDEN = [name for name, fault in FAULTS.items() if fault.hidden_by_rounding]
"""Faults that differ from the reference in last bits alone, which the arithmetic of a processor may hide."""

ALL_PRECISIONS = ("fp16", "bf16", "fp32")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_first_shows_where_it_says_or_no_earlier_if_rounding_can_hide_it(name):
    fault, shown = FAULTS[name], first_shown(known(None), known(name))
    if fault.hidden_by_rounding:
        assert not_before(shown, fault.first)
    else:
        assert shown == fault.first


@pytest.mark.parametrize("name", HIDDEN)
def test_a_fault_that_rounding_can_hide_in_one_precision_shows_in_another(name):
    assert any(known(name, precision) != known(None, precision) for precision in ALL_PRECISIONS)
    assert FAULTS[name].kind == FaultKind.ROUNDING


def shown_on(processor, *names):
    """By fault: where it first shows on another processor."""
    with OtherProcessor(processor):
        reference = observe_reference([], PRECISION)
        # Those that end early are seen to their end; of all others, the first difference is enough.
        seen = {name: observe_reference([FAULTS[name]], PRECISION, reference.observations) for name in names}
        given_up = [
            name for name, one in seen.items() if one.end.kind == EndKind.STOPPED and len(one.observations) > 30
        ]
        seen |= {name: observe_reference([FAULTS[name]], PRECISION) for name in given_up}
    return {name: first_shown(reference, one) for name, one in seen.items()}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_fault_hidden_by_rounding_shows_on_some_processors_exactly_where_it_says(name):
    """So neither an earlier nor a later place would be right."""
    shown = []
    for processor in range(1, 101):
        shown.append(shown_on(processor, name)[name])
        if FAULTS[name].first in shown and len({*shown}) > 1:
            break
    assert FAULTS[name].first in shown
    assert len({*shown}) > 1
    assert all(FAULTS[name].may_show(place) for place in shown)


@pytest.mark.slow
@pytest.mark.parametrize("processor", [1, 2])
def test_all_other_faults_first_show_at_the_same_place_on_every_processor(processor):
    others = [name for name in FAULTS if name not in HIDDEN]
    found = shown_on(processor, *others)
    assert {name: place for name, place in found.items() if place != FAULTS[name].first} == {}


def test_a_wrong_place_is_seen():
    early, clipped = (Divergence(Place(step, None, Phase.CLIPPED), Part.GRADIENTS) for step in (0, 1))
    later = Divergence(Place(3, 1, Phase.FORWARD), Part.LOSS)
    fault = replace(FAULTS["clip-twice"], first=clipped)
    assert not fault.may_show(early)
    assert fault.may_show(clipped)
    assert fault.may_show(later)
    assert fault.may_show(None), "rounding may hide it to the end"
    plain = replace(fault, hidden_by_rounding=False)
    assert not plain.may_show(later)
    assert not plain.may_show(None)
    assert plain.may_show(clipped.place)
    assert not plain.may_show(clipped._replace(part=Part.OPTIMIZER))


def test_a_stop_is_no_divergence_at_the_last_place_of_its_step():
    fault = replace(FAULTS["clip-twice"], first=Stop(1, "RuntimeError"), hidden_by_rounding=False)
    assert fault.may_show(Stop(1, "RuntimeError"))
    assert not fault.may_show(Stop(1, "CheckpointError"))
    assert not fault.may_show(fault.first.place)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_raises_if_and_only_if_it_says_so(name):
    assert (not known(name).end.finished) == (FAULTS[name].kind == FaultKind.RAISES)


def alike(names, precisions):
    """Groups of faults, and the reference, that are the same in all precisions."""
    groups = defaultdict(set)
    for name in (None, *names):
        seen = [known(name, precision) for precision in precisions]
        groups[tuple((*one.observations, one.end) for one in seen)].add(name)
    return [same for same in groups.values() if len(same) > 1]


def test_no_two_faults_are_the_same_except_those_proved_to_be():
    groups = alike([name for name in FAULTS if name not in HIDDEN], ["fp16"])
    assert sorted(map(sorted, ONE_AND_THE_SAME)) == sorted(map(sorted, groups))
    assert alike(HIDDEN, ALL_PRECISIONS) == []


def test_there_are_enough_faults_and_each_is_fully_described():
    assert len(FAULTS) >= 70
    for name, fault in FAULTS.items():
        assert fault.name == name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert re.fullmatch(r"\w.*\.", fault.symptom)
        assert re.fullmatch(r".*[^.]", fault.needs)
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+#\d+|torch/.+\.(h|py)", source) for source in fault.sources)
        assert set(fault.changes) <= set(REFERENCE_FUNCTIONS)


def test_two_faults_that_change_the_same_line_clash():
    with pytest.raises(ClashError, match="two faults change line"):
        reference_with([FAULTS["divided-twice"], FAULTS["not-divided-at-all"]])


def test_a_fault_that_removes_lines_of_another_clashes_with_it():
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
