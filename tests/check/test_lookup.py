"""Every fault is named, two together are named as two, and right loops raise no alarm."""

import random

import pytest
import torch

import loops
from gradparity.check import lookup
from gradparity.check.command import EXAMPLE
from gradparity.check.lookup import Answer, look_up
from gradparity.check.observe import observe, observe_with
from gradparity.check.user_loop import called
from gradparity.faults import FAULTS, stress
from gradparity.faults.patching import ClashError
from gradparity.parity.place import Place
from gradparity.training import Phase
from loops import IDENTICAL
from stressed import PRECISION, known, see

pytestmark = pytest.mark.processor


def seen(loop, precision=PRECISION):
    return observe(called(loop, "loop"), stress.build, precision)


def test_the_reference_behaves_like_itself():
    again = observe_with([], PRECISION)
    assert again == known(None)
    assert again is not known(None)
    assert look_up(again, known(None), see).answer == Answer.IDENTICAL
    assert observe(stress.reference, stress.build, PRECISION) == again, "compiled anew, it is the same"


@pytest.mark.parametrize("loop", IDENTICAL, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_right_loops_written_otherwise_are_identical(loop, precision):
    assert seen(loop, precision) == observe_with([], precision)


def test_without_a_scale_no_scaler_is_needed():
    assert seen(loops.without_a_scaler, "fp32") == observe_with([], "fp32")
    assert seen(loops.without_a_scaler, "fp16") != known(None)


def test_a_right_loop_of_which_less_is_seen_is_told_to_make_the_same_updates():
    loop = seen(loops.gradients_kept_aside)
    assert loop != known(None)
    assert look_up(loop, known(None), see).answer == Answer.SAME_UPDATES


@pytest.mark.parametrize(
    "name", ["clip-before-unscale", pytest.param("optimizer-not-restored", marks=pytest.mark.long)]
)
def test_a_fault_is_named_without_having_run_any_to_its_end(name):
    found = look_up(known(name), known(None), lambda faults, expected: observe_with(faults, PRECISION, expected))
    assert found.answer == Answer.FAULT
    assert FAULTS[name] in found.faults
    assert found.first


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_detected_and_named(name):
    found = look_up(known(name), known(None), see)
    assert found.answer == Answer.FAULT
    assert FAULTS[name] in found.faults


def sampled_pairs(number):
    """Pairs of faults that go together, and behave neither like one of the two alone nor like the reference."""
    order = random.Random(0)
    while number:
        pair = [FAULTS[name] for name in order.sample(sorted(FAULTS), 2)]
        try:
            both = observe_with(pair, PRECISION)
        except ClashError:
            continue
        if both not in (known(None), *(known(fault.name) for fault in pair)):
            number -= 1
            yield pair, both


@pytest.mark.long
@pytest.mark.parametrize(("number", "most"), [(3, 2)])
def test_two_faults_together_are_named_as_the_two_in_most_cases(number, most):
    named = 0
    for _, both in sampled_pairs(number):
        found = look_up(both, known(None), see)
        named += found.answer == Answer.PAIR and observe_with(found.faults, PRECISION) == both
    assert named >= most


def test_a_loop_with_two_faults_written_by_hand_is_named_as_the_pair():
    found = look_up(seen(loops.clip_and_schedule_wrong), known(None), see)
    assert found.answer == Answer.PAIR
    assert {fault.name for fault in found.faults} == {"clip-before-unscale", "schedule-advanced-on-skipped-steps"}


@pytest.mark.parametrize(
    ("loop", "names"),
    [
        pytest.param(
            loops.as_in_many_a_tutorial,
            {"mean-of-microbatch-means-by-full-k", "clip-before-unscale", "schedule-advanced-on-skipped-steps"},
            marks=pytest.mark.long,
        ),
        (
            loops.wired_by_hand,
            {"mean-of-microbatch-means", "naive-and-added-out-of-place", "schedule-advanced-on-skipped-steps"},
        ),
    ],
)
def test_three_faults_are_named_though_two_of_them_begin_like_others(monkeypatch, loop, names):
    monkeypatch.setattr(lookup, "MOST_PAIRS", 0)
    found = look_up(seen(loop), known(None), see)
    assert (found.answer, {fault.name for fault in found.faults}) == (Answer.PAIR, names)


def test_an_unknown_fault_is_told_as_unknown_with_its_first_divergence(monkeypatch):
    monkeypatch.setattr(lookup, "MOST_PAIRS", 20)
    found = look_up(seen(loops.shorter_and_shorter), known(None), see)
    assert found.answer == Answer.UNKNOWN
    assert found.first.place == Place(4, None, Phase.CLIPPED)


def test_an_unknown_fault_that_begins_like_a_known_one_is_told_as_close_to_it(monkeypatch):
    monkeypatch.setattr(lookup, "MOST_PAIRS", 20)
    first, second = FAULTS["clip-before-unscale"], FAULTS["partial-window-divided-by-full-k"]
    looks = [*known(first.name).looks[:20], *observe_with([first, second], PRECISION).looks[40:]]
    loop = type(known(None))(known(first.name).trace, looks)
    found = look_up(loop, known(None), see)
    assert found.answer == Answer.CLOSEST
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
def test_the_number_in_a_fault_is_read_off_the_loop(line, wrong, name):
    assert line in EXAMPLE
    written = {"torch": torch}
    exec(EXAMPLE.replace(line, wrong), written)
    found = look_up(seen(written["train"]), known(None), see)
    assert (found.answer, found.faults[0].name) == (Answer.FAULT, name)
