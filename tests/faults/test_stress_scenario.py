"""The stress scenario holds what faults need in order to show. Whoever takes one thing away breaks a test here."""

import math

import pytest
import torch

from gradparity.faults import stress_scenario
from gradparity.parity.state import Part
from gradparity.trace.events import Event
from gradparity.trace.fingerprint import Fingerprint
from stressed import known

pytestmark = pytest.mark.processor


def of(event, part=None):
    records = [r for r in known(None).trace.records if r.event == event]
    return [r.parts[part] for r in records] if part else records


def norms(prints):
    return {name: value.norm for name, value in prints.items() if isinstance(value, Fingerprint)}


def total(values):
    return math.sqrt(sum(norm**2 for norm in values))


def test_windows_hold_three_microbatches_and_the_last_of_each_epoch_two():
    forwards = [r.step for r in of(Event.FORWARD)]
    assert [forwards.count(step) for step in range(8)] == [3, 3, 3, 2] * 2


def test_microbatches_have_uneven_numbers_of_tokens():
    cast = stress_scenario.build("fp16")
    counts = [cast.plan.count(batch) for batch in cast.batches]
    assert len({*counts}) > 3
    assert all(len({*counts[start : start + 3]}) > 1 for start in range(0, 11, 3))


def test_each_growth_of_the_scale_makes_one_gradient_overflow_and_only_one():
    assert [r.step for r in of(Event.SKIP)] == [2, 5]
    for record in of(Event.UNSCALED):
        infinite = {name for name, norm in norms(record.parts[Part.GRADIENTS]).items() if not math.isfinite(norm)}
        assert infinite == ({"measured.weight"} if record.step in (2, 5) else set())
    scales = [r.parts[Part.SCALER]["scale"] for r in of(Event.FORWARD) if r.microbatch == 0]
    assert scales == [4096, 4096, 32768, 4096, 4096, 32768, 4096, 4096]


def test_some_steps_are_clipped_and_some_are_not_and_the_second_group_alone_would_be():
    before = [norms(prints) for prints in of(Event.UNSCALED, Part.GRADIENTS)]
    finite = [prints for prints in before if math.isfinite(total(prints.values()))]
    clipped = [prints for prints in finite if total(prints.values()) > stress_scenario.MAX_NORM]
    assert clipped
    assert len(clipped) < len(finite)
    vectors = [[prints[name] for name in ("norm.weight", "norm.bias", "shift.0")] for prints in clipped]
    assert any(total(values) > stress_scenario.MAX_NORM for values in vectors)


def test_the_branch_is_used_in_some_steps_and_not_in_later_ones():
    used = [prints["rare.weight"] is not None for prints in of(Event.READY, Part.GRADIENTS)]
    assert used == [True, False, True, False] * 2


def test_the_learning_rate_is_another_one_in_each_step_that_is_made():
    rates = [r.parts[Part.OPTIMIZER]["group 0.lr"] for r in of(Event.READY) if r.step not in (2, 5)]
    assert len({*rates}) == len(rates) == 6


def test_two_groups_decay_otherwise():
    groups = of(Event.READY, Part.OPTIMIZER)[0]
    assert (groups["group 0.weight_decay"], groups["group 1.weight_decay"]) == (0.1, 0.0)


def test_a_weight_is_tied_and_two_parameters_enter_only_as_a_sum():
    cast = stress_scenario.build("fp32")
    assert cast.model.head.weight is cast.model.embedding.weight
    gradients = torch.autograd.grad(
        cast.loss(cast.model, cast.batches[0]), [cast.model.position, cast.model.position_correction]
    )
    assert gradients[0] is gradients[1]


def test_a_norm_in_the_order_of_the_model_adds_in_the_order_of_the_optimizer():
    cast = stress_scenario.build("fp32")
    in_groups = [p for group in cast.optimizer.param_groups for p in group["params"]]
    assert all(a is b for a, b in zip(cast.model.parameters(), in_groups, strict=True))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
def test_restart_brings_everything_back_to_its_beginning(precision):
    torch.manual_seed(0)
    cast = stress_scenario.build(precision)
    begin = {name: value.clone() for name, value in cast.model.state_dict().items()}
    draw = torch.rand(3)
    stress_scenario.reference(**vars(cast))
    assert any(not torch.equal(begin[name], value) for name, value in cast.model.state_dict().items())
    cast.plan.restart()
    assert all(torch.equal(begin[name], value) for name, value in cast.model.state_dict().items())
    assert not cast.optimizer.state
    assert cast.scheduler.last_epoch == 0
    assert torch.equal(torch.rand(3), draw)


def test_a_loop_that_writes_to_its_batches_changes_none_of_the_next_one():
    before, damaged = stress_scenario.build("fp32").batches, stress_scenario.build("fp32").batches
    for batch in damaged:
        batch.inputs.zero_()
        batch.targets.zero_()
    for one, other in zip(before, stress_scenario.build("fp32").batches, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
        assert one.inputs.any()
