"""Every fault is named, pairs and triples too, and correct loops raise no false alarm."""

import math
import random
from collections import Counter

import pytest
import torch

import loops
from gradparity.check.lookup import fault_lookup
from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.running.observe import observe, observe_reference
from gradparity.check.running.user_loop import call_by_name
from gradparity.cli.check import EXAMPLE
from gradparity.faults import FAULTS, FaultKind, stress_scenario
from gradparity.faults.patching import ClashError
from gradparity.parity.place_in_training import Place
from gradparity.training import Phase
from loops import IDENTICAL
from stressed import PRECISION, known, look_up, see

pytestmark = pytest.mark.processor


def seen(loop, precision=PRECISION):
    return observe(call_by_name(loop, "loop"), stress_scenario.build, precision)


def test_the_reference_behaves_like_itself():
    again = observe_reference([], PRECISION)
    assert again == known(None)
    assert again is not known(None)
    assert look_up(again, known(None), see).match == Match.IDENTICAL
    assert observe(stress_scenario.reference, stress_scenario.build, PRECISION) == again, (
        "compiled anew, it is the same"
    )


@pytest.mark.parametrize("loop", IDENTICAL, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_correct_loops_written_in_other_ways_are_identical(loop, precision):
    assert seen(loop, precision) == observe_reference([], precision)


def test_without_a_scale_no_scaler_is_needed():
    assert seen(loops.without_a_scaler, "fp32") == observe_reference([], "fp32")
    assert seen(loops.without_a_scaler, "fp16") != known(None)


@pytest.mark.slow
def test_a_loop_whose_gradients_are_partly_hidden_makes_the_same_updates():
    loop = seen(loops.gradients_kept_aside)
    assert loop != known(None)
    assert look_up(loop, known(None), see).match == Match.SAME_UPDATES


@pytest.mark.parametrize(
    "name", ["clip-before-unscale", pytest.param("optimizer-not-restored", marks=pytest.mark.long)]
)
def test_a_fault_is_named_although_each_run_stops_at_its_first_difference(name):
    found = look_up(
        known(name), known(None), lambda faults, expected: observe_reference(faults, PRECISION, expected), memory={}
    )
    assert found.match == Match.FAULT
    assert FAULTS[name] in found.faults
    assert found.first


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_detected_and_named(name):
    found = look_up(known(name), known(None), see)
    assert found.match == Match.FAULT
    assert FAULTS[name] in found.faults


def sampled_pairs(number):
    """Yield pairs of faults that can be combined, and behave neither like one of them alone nor like the reference."""
    order = random.Random(0)
    while number:
        pair = [FAULTS[name] for name in order.sample(sorted(FAULTS), 2)]
        try:
            both = observe_reference(pair, PRECISION)
        except ClashError:
            continue
        if both not in (known(None), *(known(fault.name) for fault in pair)):
            number -= 1
            yield pair, both


def test_all_pairs_that_first_show_at_one_place_are_tried():
    places = Counter(fault.first.place for fault in FAULTS.values() if fault.kind != FaultKind.RAISES)
    (place, number), *_ = places.most_common(1)
    assert place == Place(0, 0, Phase.FORWARD)
    assert math.comb(number, 2) <= fault_lookup.MOST_PAIRS_AT_ONCE


@pytest.mark.slow
def test_a_pair_of_the_last_faults_of_the_most_common_place_is_named():
    both = observe_reference([FAULTS["positions-shifted"], FAULTS["branch-always-taken"]], PRECISION)
    found = look_up(both, known(None), see)
    assert (found.match, {f.name for f in found.faults}) == (Match.PAIR, {"positions-shifted", "branch-always-taken"})


@pytest.mark.slow
@pytest.mark.parametrize(("number", "most"), [(3, 2)])
def test_most_pairs_of_faults_are_named(number, most):
    named = 0
    for _, both in sampled_pairs(number):
        found = look_up(both, known(None), see)
        named += found.match == Match.PAIR and observe_reference(found.faults, PRECISION) == both
    assert named >= most


def test_two_faults_in_a_hand_written_loop_are_named():
    found = look_up(seen(loops.clip_and_schedule_wrong), known(None), see)
    assert found.match == Match.PAIR
    assert {fault.name for fault in found.faults} == {"clip-before-unscale", "schedule-advanced-on-skipped-steps"}


@pytest.mark.parametrize(
    ("loop", "names"),
    [
        pytest.param(
            loops.as_in_many_a_tutorial,
            {"mean-of-microbatch-means-by-full-k", "clip-before-unscale", "schedule-advanced-on-skipped-steps"},
            marks=pytest.mark.slow,
        ),
        (
            loops.wired_by_hand,
            {"mean-of-microbatch-means", "naive-and-added-out-of-place", "schedule-advanced-on-skipped-steps"},
        ),
    ],
)
def test_three_faults_are_named_though_two_begin_like_other_faults(monkeypatch, loop, names):
    monkeypatch.setattr(fault_lookup, "MOST_PAIRS", 0)
    found = look_up(seen(loop), known(None), see)
    assert (found.match, {fault.name for fault in found.faults}) == (Match.PAIR, names)


def test_an_unknown_fault_is_unknown_with_its_first_divergence(monkeypatch):
    monkeypatch.setattr(fault_lookup, "MOST_PAIRS", 20)
    found = look_up(seen(loops.shorter_and_shorter), known(None), see)
    assert found.match == Match.UNKNOWN
    assert found.first.place == Place(4, None, Phase.CLIPPED)


def test_an_unknown_fault_that_begins_like_a_known_one_is_closest_to_it(monkeypatch):
    monkeypatch.setattr(fault_lookup, "MOST_PAIRS", 20)
    first, second = FAULTS["clip-before-unscale"], FAULTS["partial-window-divided-by-full-k"]
    observations = [
        *known(first.name).observations[:20],
        *observe_reference([first, second], PRECISION).observations[40:],
    ]
    loop = type(known(None))(known(first.name).trace, observations)
    found = look_up(loop, known(None), see)
    assert found.match == Match.CLOSEST
    assert found.faults[0] == first


@pytest.mark.parametrize(
    ("line", "wrong", "name"),
    [
        ("plan.max_norm)", "5.0)", "clipped-to-5-instead-of-30"),
        ("plan.max_norm)", "36)", "clipped-to-36-instead-of-30"),
        ("= loss(model, batch) / tokens", "= 0.7 * loss(model, batch) / tokens", "loss-times-0.7"),
        ("= loss(model, batch) / tokens", "= loss(model, batch) / tokens / 3", "divided-twice-by-full-k"),
        ("= loss(model, batch) / tokens", "= loss(model, batch) / tokens / 7", "loss-times-0.1429"),
        ("plan.accumulation_steps", "5", "accumulates-5-instead-of-3"),
    ],
)  # fmt: skip
def test_the_number_in_a_fault_is_inferred(line, wrong, name):
    assert line in EXAMPLE
    written = {"torch": torch}
    exec(EXAMPLE.replace(line, wrong), written)
    found = look_up(seen(written["train"]), known(None), see)
    assert (found.match, found.faults[0].name) == (Match.FAULT, name)
