"""What a recorder sees of a loop, that it changes nothing, and that it leaves nothing behind."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.autograd import grad
from torch.nn.utils import clip_grad_norm_
from torch.optim import LBFGS, SGD

from gradparity.parity.random_stream import RandomStream
from gradparity.parity.state import Part
from gradparity.studies.train_two_ways import build
from gradparity.trace.events import Event
from gradparity.trace.report import trace_difference
from small import STEPS, small_task
from watched import changed, config_of, events_of, lane_of, trace_of, watching

TASKS = ("digits_mlp", "digits_cnn", "transformer")
MICROBATCH = [Event.FORWARD, Event.ACCUMULATED]


def two_layers():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    return model, SGD(model.parameters(), lr=0.1), torch.randn(6, 4)


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("candidate", ["backward", "manual"])
def test_not_one_bit_of_the_run_is_changed(task, precision, candidate):
    config, ends = config_of(task=task, precision=precision, candidate=candidate), []
    for watch in (True, False):
        lane = lane_of(config)
        around = watching(lane.run.model, lane.run.optimizer, scheduler=lane.run.scheduler) if watch else nullcontext()
        with RandomStream(5).active(), around:
            for window in build.windows(config, small_task(task)):
                list(lane.step(lane.run, window))
            ends.append([*lane.run.model.state_dict().values(), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_step_in_fp16_is_seen_in_its_order_and_a_skipped_one_as_skipped():
    trace = trace_of(config_of(), seed=5)
    after = [Event.UPDATE, Event.SCHEDULE, Event.ZERO_GRAD]
    window = [*MICROBATCH * 3, Event.UNSCALED, Event.CLIP, Event.SCALER_STEP, Event.READY]
    assert events_of(trace, 0) == [Event.ZERO_GRAD, *window, Event.STEP]
    assert events_of(trace, 1) == [*after, *window, Event.STEP]
    assert events_of(trace, 3) == [*after, *MICROBATCH * 2, *window[6:], Event.SKIP], (
        "a partial last window, and the overflow"
    )
    assert events_of(trace, 4) == [Event.UPDATE, Event.ZERO_GRAD, *window, Event.STEP], (
        "no schedule after a skipped step"
    )
    assert trace.records[-1].event == Event.END
    assert [r.microbatch for r in trace.records if r.step == 1 and r.event == Event.FORWARD] == [0, 1, 2]
    assert {r.step for r in trace.records if r.event in (Event.STEP, Event.SKIP)} == set(range(STEPS))


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("k", [1, 3])
def test_both_routes_leave_the_same_trace(task, precision, k):
    config = {"task": task, "precision": precision, "accumulation_steps": k}
    ours, theirs = (trace_of(config_of(**config, candidate=route)) for route in ("backward", "manual"))
    found = trace_difference(ours, theirs)
    assert found.parity, found.verdict.explanation
    assert found.events is None
    assert found.draws is None
    assert [r.event for r in ours.records] == [r.event for r in theirs.records]
    assert found.verdict.cells


def test_a_name_that_was_imported_before_the_recording_is_seen():
    model, optimizer, x = two_layers()
    with watching(model, optimizer) as records:
        for p, g in zip(model.parameters(), grad(model(x).sum(), list(model.parameters())), strict=True):
            p.grad = g
        clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
    assert [r.event for r in records] == [*MICROBATCH, Event.CLIP, Event.READY, Event.STEP, Event.END]


def test_a_clip_written_by_hand_is_seen_in_what_the_optimizer_reads():
    trained = []
    for by_hand in (False, True):
        model, optimizer, x = two_layers()
        with watching(model, optimizer) as records:
            model(x).sum().backward()
            if by_hand:
                for p in model.parameters():
                    p.grad.data.clamp_(-0.01, 0.01)  # .data: the version counter of p.grad does not move
            else:
                nn.utils.clip_grad_value_(model.parameters(), 0.01)
            optimizer.step()
        trained.append({r.event: r.parts for r in records})
    library, hand = trained
    assert library[Event.READY] == hand[Event.READY] != library[Event.ACCUMULATED]
    assert Event.CLIP in library
    assert Event.CLIP not in hand


def test_a_closure_is_seen_before_the_optimizer_reads_what_it_left():
    model, optimizer, x = two_layers()

    def closure():
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        return loss

    with watching(model, optimizer) as records:
        assert optimizer.step(closure) > 0
        assert optimizer.step(closure=closure) > 0
    step = [Event.ZERO_GRAD, *MICROBATCH, Event.READY, Event.STEP]
    assert [r.event for r in records] == [*step, *step, Event.END]
    ready = [r.parts[Part.GRADIENTS] for r in records if r.event in (Event.ACCUMULATED, Event.READY)]
    assert ready[0] == ready[1]


def test_lbfgs_may_call_its_closure_as_often_as_it_likes():
    model, _, x = two_layers()
    optimizer = LBFGS(model.parameters(), max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        return loss

    with watching(model, optimizer) as records:
        optimizer.step(closure)
    events = [r.event for r in records]
    assert events.count(Event.FORWARD) > 1
    assert events.count(Event.READY) == events.count(Event.STEP) == 1


def test_backwards_inside_a_backward_are_not_microbatches():
    from torch.utils.checkpoint import checkpoint

    model, optimizer, x = two_layers()
    with watching(model, optimizer) as records:
        model[1](checkpoint(model[0], x.requires_grad_(), use_reentrant=True)).sum().backward()
        optimizer.step()
    assert [r.event for r in records] == [*MICROBATCH, Event.READY, Event.STEP, Event.END]


def test_gradients_of_something_else_are_not_microbatches():
    model, optimizer, x = two_layers()
    with watching(model, optimizer) as records:
        x.requires_grad_()
        (penalty,) = grad(model(x).sum(), x, create_graph=True)
        model(x).sum().backward(inputs=[x], retain_graph=True)
        penalty.square().sum().backward()
        optimizer.step()
    assert [r.event for r in records] == [*MICROBATCH, Event.READY, Event.STEP, Event.END]


def test_calls_of_another_model_are_no_events():
    model, optimizer, x = two_layers()
    other = SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    scaler = GradScaler("cpu", init_scale=2.0)
    with watching(model, optimizer) as records:
        other.zero_grad()
        scaler.scale(other.param_groups[0]["params"][0] * 1.0).backward()
        scaler.unscale_(other)
        scaler.step(other)
        nn.utils.clip_grad_norm_(other.param_groups[0]["params"], 1.0)
        nn.Linear(1, 1).zero_grad()
        nn.Linear(4, 1)(model(x).detach().expand(6, 4)).sum().backward()
    assert [r.event for r in records] == [Event.END]


def test_no_gradient_is_read_while_another_model_trains():
    """Another thread may train it: to read a gradient while autograd writes it can crash the process."""
    reads = []

    class Watched(nn.Parameter):
        @property
        def grad(self):
            reads.append(self)
            return torch.Tensor.grad.__get__(self)

    def train(parameters):
        optimizer = SGD(parameters, lr=0.1, foreach=False)
        optimizer.zero_grad()
        sum(p.square().sum() for p in parameters).backward()
        clip_grad_norm_(parameters, 0.1)
        nn.utils.clip_grad_value_(parameters, 0.1)
        optimizer.step()

    model = nn.Linear(1, 1)
    model.weight = Watched(torch.ones(1, 1))
    optimizer = SGD(model.parameters(), lr=0.1)
    with watching(model, optimizer):
        train([nn.Parameter(torch.ones(2))])
        assert reads == []
        model(torch.ones(1, 1)).sum().backward()
        assert reads
        optimizer.step()


def test_the_state_that_a_step_starts_from_is_seen_at_its_first_forward():
    model, optimizer, x = two_layers()
    with watching(model, optimizer) as records:
        for _ in range(2):
            model(x).sum().backward()
        optimizer.step()
    first, second = (r.parts for r in records if r.event == Event.FORWARD)
    assert Part.PARAMETERS in first
    assert Part.PARAMETERS not in second


@pytest.mark.parametrize(
    ("right", "wrong", "step", "events"),
    [
        ("run.scaler.step(run.optimizer)", "run.scaler.step(run.optimizer); run.optimizer.step()", 0, None),
        ("run.scaler.update()", "run.scaler.update(); run.scheduler.step()", 0, (Event.SCHEDULE, 2)),
        ("    run.clip(run.parameters)\n", "    run.clip(run.parameters)\n    run.clip(run.parameters)\n", 0, (Event.CLIP, 2)),
        ("    run.clip(run.parameters)\n", "    pass\n", 0, (Event.CLIP, 0)),
        ("run.scheduler.step()", "pass", 0, (Event.SCHEDULE, 0)),
        ("if run.scaler.get_scale() >= scale", "if True", 3, (Event.SCHEDULE, 1)),
        ("run.optimizer.zero_grad(set_to_none=True)", "pass", 1, (Event.ZERO_GRAD, 0)),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
def test_a_loop_with_different_calls_is_distinguished_by_its_events(right, wrong, step, events):
    ours, theirs = trace_of(config_of()), trace_of(config_of(), changed(right, wrong))
    found = trace_difference(ours, theirs)
    assert not found.parity
    assert found.events[0] == step
    if events:
        event, times = events
        assert found.events[2].count(event) == times != found.events[1].count(event)
