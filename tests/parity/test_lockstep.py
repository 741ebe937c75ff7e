"""Lockstep can fail: whatever is changed in a run, at whatever phase, is found at that step and phase, by its name."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from gradparity.faults.patching import source
from gradparity.parity.compare import SharedMemoryError
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.lockstep import lockstep
from gradparity.parity.place_in_training import START, Place
from gradparity.parity.random_stream import RandomStream
from gradparity.parity.report import verdict_headline
from gradparity.parity.state import Part
from gradparity.parity.verdict import Verdict
from gradparity.studies.train_two_ways import build
from gradparity.training import Phase, train_step
from small import STEPS, comparisons, small_config, small_lanes, small_task, verdict_of

pytestmark = pytest.mark.processor


def rewritten(function, right, wrong):
    """`function` with `wrong` in the place of `right`, which is there once."""
    text = "".join(source(function))
    assert text.count(right) == 1
    names = dict(function.__globals__)
    exec(text.replace(right, wrong), names)
    return names[function.__name__]


FP16 = small_config(task="digits_cnn", precision="fp16", candidate="backward")


def tampered(change, at_step, at_phase, at_microbatch=None):
    """The reference step, with ``change`` made to the run when it has come to one phase of one step."""
    step = -1

    def tampered_step(run, window):
        nonlocal step
        step += 1
        for moment in train_step(run, window):
            if (step, moment.phase) == (at_step, at_phase) and moment.microbatch in (None, at_microbatch):
                change(run)
            yield moment

    return tampered_step


def first_difference(change, at_step, at_phase, at_microbatch=None, config=FP16):
    reference, candidate = small_lanes(config)
    candidate = replace(candidate, step=tampered(change, at_step, at_phase, at_microbatch))
    for found in comparisons(config, [reference, candidate]):
        if found.mismatches:
            return found, found.mismatches[0]
    return pytest.fail("nothing was found to differ")


def one_ulp_more(tensor):
    tensor.view(-1)[0].copy_(torch.nextafter(tensor.view(-1)[0], torch.tensor(torch.inf)))


def parameter(run):
    return dict(run.model.named_parameters())["9.weight"]


def gradient(run):
    return parameter(run).grad


def replace_parameter(run, change):
    old = parameter(run)
    run.model[9].weight = torch.nn.Parameter(old.detach().clone())
    change(run.model[9].weight)
    for group in run.optimizer.param_groups:
        group["params"] = [run.model[9].weight if p is old else p for p in group["params"]]
    run.optimizer.state[run.model[9].weight] = run.optimizer.state.pop(old)
    if change is one_ulp_more:
        run.model[9].weight.grad = old.grad


def no_grad(change):
    return torch.no_grad()(change)


def set_gradient(value):
    def change(run):
        parameter(run).grad = value(gradient(run))

    return change


def share(run):
    a, b = (dict(run.model.named_parameters())[name] for name in ("1.weight", "1.bias"))
    a.grad = b.grad


def step_scheduler(run):
    run.scheduler.last_epoch += 1


def momentum(run):
    return run.optimizer.state[parameter(run)]["exp_avg"]


TAMPERINGS = [
    ("a gradient by one ULP", Phase.ACCUMULATED, lambda r: one_ulp_more(gradient(r)), Part.GRADIENTS, "9.weight", Kind.BITS),
    ("a gradient by one ULP", Phase.UNSCALED, lambda r: one_ulp_more(gradient(r)), Part.GRADIENTS, "9.weight", Kind.BITS),
    ("a gradient by one ULP", Phase.CLIPPED, lambda r: one_ulp_more(gradient(r)), Part.GRADIENTS, "9.weight", Kind.BITS),
    ("a gradient after the step", Phase.STEPPED, lambda r: one_ulp_more(gradient(r)), Part.GRADIENTS, "9.weight", Kind.BITS),
    ("a gradient to None", Phase.CLIPPED, set_gradient(lambda g: None), Part.GRADIENTS, "9.weight", Kind.PRESENCE),
    ("two elements swapped", Phase.CLIPPED, set_gradient(lambda g: g.flip(1)), Part.GRADIENTS, "9.weight", Kind.BITS),
    ("a gradient's dtype", Phase.CLIPPED, lambda r: setattr(parameter(r), "grad_dtype", None) or set_gradient(lambda g: g.double())(r), Part.GRADIENTS, "9.weight", Kind.DTYPE),
    ("a gradient's strides", Phase.CLIPPED, set_gradient(lambda g: g.t().contiguous().t()), Part.GRADIENTS, "9.weight", Kind.STRIDES),
    ("a gradient to sparse", Phase.CLIPPED, set_gradient(lambda g: g.to_sparse()), Part.GRADIENTS, "9.weight", Kind.LAYOUT),
    ("two gradients to one tensor of equal value", Phase.ACCUMULATED, lambda r: (gradient_of(r, "1.bias").zero_(), share(r)), Part.GRADIENTS, "1.weight", Kind.BITS),
    ("a parameter by one ULP", Phase.STEPPED, lambda r: one_ulp_more(parameter(r)), Part.PARAMETERS, "9.weight", Kind.BITS),
    ("a moment by one ULP", Phase.STEPPED, lambda r: one_ulp_more(momentum(r)), Part.OPTIMIZER, "9.weight.exp_avg", Kind.BITS),
    ("a learning rate", Phase.STEPPED, lambda r: r.optimizer.param_groups[1].update(lr=0.5), Part.OPTIMIZER, "group 1.lr", Kind.VALUE),
    ("a parameter to the other group", Phase.STEPPED, lambda r: r.optimizer.param_groups[1]["params"].append(r.optimizer.param_groups[0]["params"].pop()), Part.OPTIMIZER, "group 0.params", Kind.VALUE),
    ("the loss scale", Phase.UNSCALED, lambda r: r.scaler._scale.mul_(2), Part.SCALER, "scale", Kind.VALUE),
    ("the growth tracker", Phase.STEPPED, lambda r: r.scaler._growth_tracker.add_(1), Part.SCALER, "_growth_tracker", Kind.VALUE),
    ("the schedule", Phase.STEPPED, step_scheduler, Part.SCHEDULER, "last_epoch", Kind.VALUE),
    ("a running mean by one ULP", Phase.FORWARD, lambda r: one_ulp_more(dict(r.model.named_buffers())["1.running_mean"]), Part.BUFFERS, "1.running_mean", Kind.BITS),
    ("a running mean by one ULP", Phase.ACCUMULATED, lambda r: one_ulp_more(dict(r.model.named_buffers())["1.running_mean"]), Part.BUFFERS, "1.running_mean", Kind.BITS),
    ("the number of batches seen", Phase.STEPPED, lambda r: dict(r.model.named_buffers())["1.num_batches_tracked"].add_(1), Part.BUFFERS, "1.num_batches_tracked", Kind.BITS),
    ("a parameter replaced by one with one ULP more", Phase.STEPPED, lambda r: replace_parameter(r, one_ulp_more), Part.PARAMETERS, "9.weight", Kind.BITS),
    ("a parameter replaced by its copy, without a gradient", Phase.UNSCALED, lambda r: replace_parameter(r, lambda p: None), Part.GRADIENTS, "9.weight", Kind.PRESENCE),
    ("a parameter's strides", Phase.STEPPED, lambda r: setattr(parameter(r), "data", parameter(r).data.t().contiguous().t()), Part.PARAMETERS, "9.weight", Kind.STRIDES),
    ("a gradient's strides in place", Phase.CLIPPED, lambda r: setattr(gradient(r), "data", gradient(r).data.t().contiguous().t()), Part.GRADIENTS, "9.weight", Kind.STRIDES),
    ("a new entry in an optimizer's state", Phase.STEPPED, lambda r: r.optimizer.state[parameter(r)].update(more=torch.ones(1)), Part.OPTIMIZER, "9.weight.more", Kind.PRESENCE),
    ("a moment's name", Phase.STEPPED, lambda r: r.optimizer.state[parameter(r)].update(exp_avg_sq_=r.optimizer.state[parameter(r)].pop("exp_avg_sq")), Part.OPTIMIZER, "9.weight.exp_avg_sq", Kind.PRESENCE),
    ("a moment's dtype", Phase.STEPPED, lambda r: r.optimizer.state[parameter(r)].update(exp_avg=momentum(r).double()), Part.OPTIMIZER, "9.weight.exp_avg", Kind.DTYPE),
    ("a moment to None", Phase.STEPPED, lambda r: r.optimizer.state[parameter(r)].update(exp_avg=None), Part.OPTIMIZER, "9.weight.exp_avg", Kind.PRESENCE),
    ("a buffer registered later", Phase.FORWARD, lambda r: r.model[1].register_buffer("late", torch.ones(1)), Part.BUFFERS, "1.late", Kind.PRESENCE),
    ("a module added later", Phase.ACCUMULATED, lambda r: r.model.append(torch.nn.BatchNorm1d(1)), Part.GRADIENTS, "10.weight", Kind.PRESENCE),
    ("a running mean's dtype", Phase.FORWARD, lambda r: r.model[1].register_buffer("running_mean", r.model[1].running_mean.double()), Part.BUFFERS, "1.running_mean", Kind.DTYPE),
    ("a plain tensor in the place of a number", Phase.FORWARD, lambda r: setattr(r.model[1], "eps", torch.tensor(r.model[1].eps)), Part.BUFFERS, "1.eps", Kind.PRESENCE),
    ("a parameter by one ULP, through .data", Phase.STEPPED, lambda r: one_ulp_more(parameter(r).data), Part.PARAMETERS, "9.weight", Kind.BITS),
    ("all gradients, by a foreach kernel", Phase.CLIPPED, lambda r: torch._foreach_mul_([gradient(r)], 2.0), Part.GRADIENTS, "9.weight", Kind.BITS),
    ("one random number drawn", Phase.FORWARD, lambda r: torch.rand(1), Part.RNG, "cpu", Kind.BITS),
]  # fmt: skip


def gradient_of(run, name):
    return dict(run.model.named_parameters())[name].grad


@pytest.mark.parametrize("case", TAMPERINGS, ids=lambda case: f"{case[0]} at {case[1].name.lower()}")
def test_whatever_is_changed_is_found_where_it_happened(case):
    _, phase, change, part, name, kind = case
    microbatch = 1 if phase in (Phase.FORWARD, Phase.ACCUMULATED) else None
    found, mismatch = first_difference(no_grad(change), 1, phase, microbatch)
    assert (found.place.step, found.place.phase, found.place.microbatch) == (1, phase, microbatch)
    assert (mismatch.part, mismatch.name, mismatch.kind) == (part, name, kind)


def test_sharing_of_memory_is_found_even_while_every_bit_agrees():
    def change(run):
        for p in (gradient_of(run, "1.weight"), gradient_of(run, "1.bias")):
            p.zero_()

    def change_and_share(run):
        change(run)
        share(run)

    reference, candidate = small_lanes(FP16)
    reference = replace(reference, step=tampered(no_grad(change), 2, Phase.ACCUMULATED, 0))
    candidate = replace(candidate, step=tampered(no_grad(change_and_share), 2, Phase.ACCUMULATED, 0))
    found, mismatch = verdict_of(FP16, [reference, candidate]).first
    assert found.place == Place(2, 0, Phase.ACCUMULATED)
    assert (mismatch.part, mismatch.kind) == (Part.ALIASING, Kind.VALUE)
    assert {mismatch.name, mismatch.candidate} <= {
        "1.weight.grad",
        "1.bias.grad",
        "memory of 1.weight.grad",
        "memory of 1.bias.grad",
    }


def test_another_loss_is_found_at_its_forward():
    reference, candidate = small_lanes(FP16)

    def another_loss(model, batch):
        return reference.run.loss(model, batch) * (1 + 2**-20)

    candidate = replace(candidate, run=replace(candidate.run, loss=another_loss))
    found, mismatch = verdict_of(FP16, [reference, candidate]).first
    assert (found.place.step, found.place.phase, found.place.microbatch, mismatch.part) == (
        0,
        Phase.FORWARD,
        0,
        Part.LOSS,
    )


def test_other_initial_weights_are_found_before_the_first_step():
    reference, _ = small_lanes(FP16)
    _, candidate = small_lanes(replace(FP16, seed=1))
    found, mismatch = verdict_of(FP16, [reference, candidate]).first
    assert (found.place, mismatch.part) == (START, Part.PARAMETERS)


def test_another_random_stream_is_found_before_the_first_step():
    reference, candidate = small_lanes(FP16)
    found, mismatch = verdict_of(FP16, [reference, replace(candidate, random=RandomStream(1))]).first
    assert (found.place, mismatch.part) == (START, Part.RNG)


def test_two_runs_that_draw_from_one_stream_are_refused():
    reference, candidate = small_lanes(FP16)
    with pytest.raises(SharedMemoryError, match="rng"):
        verdict_of(FP16, [reference, replace(candidate, random=reference.random)])


def test_a_run_cannot_be_compared_with_itself():
    reference, _ = small_lanes(FP16)
    with pytest.raises(SharedMemoryError, match="same tensor"):
        verdict_of(FP16, [reference, reference])


def test_optimizer_state_loaded_without_a_copy_is_refused():
    """``load_state_dict`` shares the moments: from then on the two runs would train on one set of them."""
    reference, candidate = small_lanes(FP16)
    steps = lockstep(reference, candidate, build.windows(FP16, small_task("digits_cnn")))
    while next(steps).place.step < 1:
        pass
    candidate.run.optimizer.load_state_dict(reference.run.optimizer.state_dict())
    with pytest.raises(SharedMemoryError, match="optimizer"):
        list(steps)


def test_no_steps_are_no_parity():
    verdict = Verdict()
    for found in lockstep(*small_lanes(FP16), []):
        verdict.add(found)
    assert verdict.first is None
    assert not verdict.parity


def test_the_random_state_outside_is_left_alone():
    before = torch.get_rng_state()
    list(comparisons(FP16))
    assert torch.equal(torch.get_rng_state(), before)


LINES = [
    "run.optimizer.zero_grad(set_to_none=True)",
    "yield Moment(Phase.FORWARD, index, loss.detach())",
    "run.route(run.scaler.scale(loss), run.parameters)",
    "yield Moment(Phase.ACCUMULATED, index)",
    "run.scaler.unscale_(run.optimizer)",
    "yield Moment(Phase.UNSCALED)",
    "run.clip(run.parameters)",
    "yield Moment(Phase.CLIPPED)",
    "run.scaler.step(run.optimizer)",
    "run.scaler.update()",
    "run.scheduler.step()",
    "yield Moment(Phase.STEPPED)",
]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_no_line_of_the_reference_step_can_be_deleted(line):
    config = replace(FP16, clip=replace(FP16.clip, threshold=0.05))
    assert verdict_of(config).parity
    reference, candidate = small_lanes(config)
    candidate = replace(candidate, step=rewritten(train_step, line, "pass"))
    if line in ("run.route(run.scaler.scale(loss), run.parameters)", "run.scaler.update()"):
        with pytest.raises((RuntimeError, AssertionError), match="scale"):
            verdict_of(config, [reference, candidate])
        return
    verdict = verdict_of(config, [reference, candidate])
    if line.startswith("yield") and "index" in line:
        assert verdict.parity, "a loop need not stop at every microbatch"
        assert sum(verdict.uncompared.values()) == 20
    else:
        assert not verdict.parity


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (" / window.normalizer", ""),
        (" / window.normalizer", " / 12"),
        (" / window.normalizer", " / len(window.microbatches) / len(microbatch.targets)"),
        ("with run.autocast()", "if True"),
        ("if run.scaler.get_scale() >= scale", "if True"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_no_expression_of_the_reference_step_can_be_changed(right, wrong):
    reference, candidate = small_lanes(FP16)
    verdict = verdict_of(FP16, [reference, replace(candidate, step=rewritten(train_step, right, wrong))])
    assert not verdict.parity
    assert verdict.steps == STEPS


def counted_walks(monkeypatch, owner):
    """The walks through the parameters of a model, as they are made."""
    walks, walk = [], owner.named_parameters

    def walked(*model, **by_the_step):
        if not by_the_step:  # the step itself asks for its parameters, which passes an argument
            walks.append(None)
        return walk(*model, **by_the_step)

    monkeypatch.setattr(owner, "named_parameters", walked)
    return walks


def test_a_model_that_does_not_change_is_walked_once_in_a_training(monkeypatch):
    lanes = small_lanes(FP16)
    walks = counted_walks(monkeypatch, torch.nn.Module)
    assert sum(bool(found.checked) for found in comparisons(FP16, lanes)) > 50
    assert len(walks) == len(lanes)


def test_a_model_with_its_own_way_to_name_parameters_is_walked_at_each_phase(monkeypatch):
    reference, candidate = small_lanes(FP16)
    walks = counted_walks(monkeypatch, reference.run.model)
    phases = sum(bool(found.checked) for found in comparisons(FP16, [reference, candidate]))
    assert len(walks) == phases + 1


def with_loss(lane, loss):
    return replace(lane, run=replace(lane.run, loss=loss(lane.run.loss)))


@pytest.mark.parametrize("draw", [random.random, lambda: float(np.random.rand())])
def test_random_numbers_of_python_and_numpy_are_each_lanes_own(draw):
    outside = random.getstate(), np.random.get_state()[1].tolist()
    lanes = [with_loss(lane, lambda loss: lambda m, b: loss(m, b) * (1 + draw())) for lane in small_lanes(FP16)]
    assert verdict_of(FP16, lanes).parity
    assert (random.getstate(), np.random.get_state()[1].tolist()) == outside


def test_one_draw_more_from_python_or_numpy_is_found():
    for draw in (random.random, np.random.rand):
        _, mismatch = first_difference(lambda run, draw=draw: draw(), 1, Phase.STEPPED)
        assert mismatch.part == Part.RNG


def test_flags_and_plain_tensors_that_change_are_found():
    for change, part, name in (
        (lambda r: r.model[1].eval(), Part.MODES, "1.training"),
        (lambda r: parameter(r).requires_grad_(False), Part.MODES, "9.weight.requires_grad"),
        (lambda r: gradient(r).requires_grad_(), Part.MODES, "9.weight.grad.requires_grad"),
        (lambda r: setattr(r.model, "kept", torch.ones(1)), Part.BUFFERS, "kept"),
    ):
        found, mismatch = first_difference(change, 1, Phase.STEPPED)
        assert (found.place.step, found.place.phase, mismatch.part, mismatch.name) == (1, Phase.STEPPED, part, name)


def test_values_that_cannot_be_compared_are_counted_separately_and_reported():
    lanes = small_lanes(FP16)
    for lane in lanes:
        lane.run.optimizer.param_groups[0]["plan"] = lambda step: step
    verdict = verdict_of(FP16, lanes)
    assert verdict.parity
    assert list(verdict.unseen) == ["optimizer group 0.plan"]
    assert verdict_headline(verdict).endswith("The content of 1 value was not compared: optimizer group 0.plan.")
    assert "not compared" not in verdict_headline(verdict_of(FP16))


def test_a_trained_tensor_outside_the_model_is_compared():
    lanes = small_lanes(FP16)
    for lane in lanes:
        lane.run.optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)]})
    assert not next(iter(comparisons(FP16, lanes))).mismatches
    with torch.no_grad():
        lanes[1].run.optimizer.param_groups[-1]["params"][0].add_(1)
    found = next(iter(comparisons(FP16, lanes)))
    assert "outside the model" in next(m.name for m in found.mismatches if m.part == Part.PARAMETERS)


def test_a_model_that_writes_its_input_does_not_change_the_other_run():
    def in_place(loss):
        def written(model, batch):
            batch.inputs.mul_(0.5)
            return loss(model, batch)

        return written

    assert verdict_of(FP16, [with_loss(lane, in_place) for lane in small_lanes(FP16)]).parity
