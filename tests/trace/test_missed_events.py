"""A recording harms no training, whatever fails in it, and says what it has not seen."""

import copy
import pickle
import warnings

import cloudpickle
import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR

import gradparity
from gradparity.errors import UserError
from gradparity.parity.bits import same_bits
from gradparity.parity.state import Part
from gradparity.trace import trace_file
from gradparity.trace.events import Event
from gradparity.trace.harmless_hooks import Guard
from gradparity.trace.isolation import RecordingWarning
from gradparity.trace.report import sentences, trace_difference
from gradparity.trace.snapshot import TrainingObjects
from gradparity.trace.step_recorder import Recorder
from gradparity.trace.trace_file import read, tensor_of
from gradparity.trace.watchers import Watchers
from gradparity.training import backward, manual

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def things():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, GradScaler("cpu", init_scale=4.0), ExponentialLR(optimizer, 0.9)


def train(model, optimizer, scaler, scheduler):
    for _ in range(3):
        optimizer.zero_grad()
        scaler.scale(model(X).square().mean()).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()


def recorded(folder, full=False):
    """The bits of a watched training, and what was warned of."""
    made = model, optimizer, scaler, scheduler = things()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with gradparity.record(model, optimizer, folder, scaler=scaler, scheduler=scheduler, full=full):
            train(*made)
    return [*model.state_dict().values()], [w for w in warned if w.category is RecordingWarning]


@pytest.fixture(scope="module")
def unwatched():
    made = things()
    train(*made)
    return [*made[0].state_dict().values()]


WATCHERS = ["_zero_grad", "_scale", "_differentiate", "_unscale", "_clip", "_scaler_step", "_update", "_schedule"]
OTHERS = ["step_begins", "step_ends", "_finish"]


def fails_before(*_):
    raise ZeroDivisionError("a fault of ours")
    yield


def fails_after(*_):
    yield
    raise ZeroDivisionError("a fault of ours")


def fails(*_):
    raise ZeroDivisionError("a fault of ours")


@pytest.mark.parametrize(
    ("callback", "fault"),
    [*((name, fault) for name in WATCHERS for fault in (fails_before, fails_after)), *((n, fails) for n in OTHERS)],
)
def test_an_error_in_any_callback_ends_the_recording_and_changes_no_bit(
    callback, fault, unwatched, tmp_path, monkeypatch
):
    monkeypatch.setattr(Recorder if callback == "_finish" else Watchers, callback, fault)
    bits, (warned,) = recorded(tmp_path)
    assert all(same_bits(a, b) for a, b in zip(bits, unwatched, strict=True))
    told = "the recording ends here, the training goes on: ZeroDivisionError: a fault of ours"
    assert str(warned.message) == told
    trace = read(tmp_path)
    assert not trace.complete
    assert trace.notes == ("the recording ended before the loop did: ZeroDivisionError: a fault of ours",)


def test_every_callback_is_among_those_that_were_made_to_fail(monkeypatch):
    watched = []
    monkeypatch.setattr(
        Guard, "around", lambda self, watcher: watched.append(watcher.__name__) or (lambda f, *a, **k: f(*a, **k))
    )
    ran = []
    monkeypatch.setattr(Guard, "run", lambda self, function, *args: ran.append(function.__name__))
    made = things()
    with Recorder(TrainingObjects(*made), lambda record, seen: None).watching():
        train(*made)
    assert {*watched} == {*WATCHERS}
    assert {*ran} == {*OTHERS, "finish"}, "test_late_records.py makes finish fail"


@pytest.mark.parametrize("nth", range(3, 32, 5))
def test_an_error_while_something_is_written_changes_no_bit(nth, unwatched, tmp_path, monkeypatch):
    written, write = [], trace_file.Writer.write

    def fails_once(self, *args):
        written.append(args)
        if len(written) == nth:
            raise MemoryError("no room")
        write(self, *args)

    monkeypatch.setattr(trace_file.Writer, "write", fails_once)
    bits, (warned,) = recorded(tmp_path, full=True)
    assert all(same_bits(a, b) for a, b in zip(bits, unwatched, strict=True))
    assert "MemoryError: no room" in str(warned.message)
    assert len(written) == nth, "nothing more is tried"


def test_where_warnings_are_errors_a_fault_still_ends_no_training(unwatched, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Watchers, "_zero_grad", fails_before)
    made = model, optimizer, scaler, scheduler = things()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecordingWarning)
        with gradparity.record(model, optimizer, tmp_path, scaler=scaler, scheduler=scheduler):
            train(*made)
    assert all(same_bits(a, b) for a, b in zip(model.state_dict().values(), unwatched, strict=True))
    assert capsys.readouterr().err.startswith("gradparity: the recording ends here, the training goes on")


def test_an_interrupt_is_meant_for_the_training(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(Watchers, "_zero_grad", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recorded(tmp_path)


def step(model, optimizer):
    optimizer.zero_grad()
    model(X).square().mean().backward()
    optimizer.step()


def nothing(model, optimizer):
    model(X)


def replaced(model, optimizer):
    step(model, optimizer)
    step(model, SGD(model.parameters(), lr=0.1))


def elsewhere(model, optimizer):
    other = nn.Linear(4, 2)
    other(X).sum().backward()


@pytest.mark.parametrize(
    ("loop", "told"),
    [
        (step, []),
        (nothing, ["it saw no step"]),
        (replaced, ["another optimizer (SGD) made 1 step with the same parameters; record that one"]),
        (elsewhere, ["it saw no step", "no backward (1 in all) reached a parameter of the model or the optimizer"]),
    ],
)
def test_events_that_a_recording_missed_are_reported_at_its_end_and_by_diff(loop, told, tmp_path):
    model, optimizer, *_ = things()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", RecordingWarning)
        with gradparity.record(model, optimizer, tmp_path):
            loop(model, optimizer)
    notes = read(tmp_path).notes
    assert len(notes) == len(told) == len(warned)
    assert all(note.startswith(start) for note, start in zip(notes, told, strict=True))
    shown = "\n".join(sentences(trace_difference(read(tmp_path), read(tmp_path))))
    assert all(f"Note: the candidate's recording lacks something: {note}" in shown for note in notes)


def test_an_optimizer_without_the_models_parameters_is_reported(tmp_path):
    old, optimizer, *_ = things()
    model = copy.deepcopy(old)
    with pytest.warns(RecordingWarning, match="the optimizer holds none of the model's parameters"):  # noqa: SIM117
        with gradparity.record(model, optimizer, tmp_path):
            step(model, optimizer)
    assert any(p.startswith("outside the model") for p in read(tmp_path).records[-1].parts[Part.PARAMETERS])


@pytest.mark.parametrize(
    ("model", "optimizer", "told"),
    [
        (lambda m: m, lambda o: [o, o], r"2 optimizers in a list; record one"),
        (lambda m: {"m": m}, lambda o: o, r"the model is a dict; give one torch.nn.Module"),
        (lambda m: m, lambda o: None, r"the optimizer is a NoneType; give a torch.optim.Optimizer"),
        (lambda m: m, lambda o: "adam", r"optimizers in a str; record one|the optimizer is a str"),
    ],
)
def test_a_recording_that_cannot_start_is_refused_in_one_sentence_and_leaves_no_folder(
    model, optimizer, told, tmp_path
):
    trained, step_by, *_ = things()
    with pytest.raises(UserError, match=told):  # noqa: SIM117
        with gradparity.record(model(trained), optimizer(step_by), tmp_path / "trace"):
            pass
    assert not (tmp_path / "trace").exists()


def test_a_torch_in_which_nothing_would_be_seen_is_refused(tmp_path, monkeypatch):
    engine, model = torch.autograd.graph._engine_run_backward, things()[0]

    def unseen(tensors, *_, **__):
        engine((tensors,), (torch.ones_like(tensors),), False, False, (), allow_unreachable=True, accumulate_grad=True)

    monkeypatch.setattr(torch.autograd, "backward", unseen)
    with pytest.raises(UserError, match="differentiates where gradparity does not see it"):  # noqa: SIM117
        with gradparity.record(model, SGD(model.parameters()), tmp_path / "trace"):
            pass
    assert not (tmp_path / "trace").exists()


def test_a_class_of_main_can_be_pickled_by_value_inside_of_a_recording(tmp_path):
    class Mine(SGD):
        def zero_grad(self, set_to_none=True):
            super().zero_grad(set_to_none)

    model, _, scaler, _ = things()
    optimizer = Mine(model.parameters(), lr=0.1)
    with gradparity.record(model, optimizer, tmp_path, scaler=scaler):
        step(model, optimizer)
        content = cloudpickle.dumps((model, optimizer))
    again, other = pickle.loads(content)
    step(again, other)
    step(model, optimizer)
    assert all(same_bits(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def routes(route):
    def loop(model, optimizer):
        for weight in (1.0, 0.0, 1.0):
            route((model(torch.ones(3, 4)).square() * weight).sum(), list(model.parameters()))
        optimizer.step()

    return loop


def test_a_microbatch_whose_gradient_is_zero_counts_on_both_routes():
    def make():
        model = nn.Linear(4, 1)
        return model, SGD(model.parameters(), 0.1)

    gradparity.assert_parity(routes(backward), routes(manual), make)


def test_a_gradient_that_is_never_wired_in_is_no_microbatch(tmp_path):
    model, optimizer, *_ = things()
    with gradparity.record(model, optimizer, tmp_path):
        torch.autograd.grad(model(X).sum(), list(model.parameters()))
        step(model, optimizer)
    events = [r.event for r in read(tmp_path).records]
    assert events.count(Event.ACCUMULATED) == 1


@pytest.mark.parametrize("dtype", [torch.complex128, torch.complex64, torch.bfloat16, torch.float64])
def test_tensors_of_any_dtype_are_kept_and_read_back(dtype, tmp_path):
    p = nn.Parameter(torch.ones(3, 2, dtype=dtype))
    model = nn.ParameterList([p])
    model.register_buffer("eight", torch.ones(3).to(torch.float8_e5m2))
    optimizer = SGD([p], lr=0.1)
    with gradparity.record(model, optimizer, tmp_path, full=True):
        (p * p.conj()).real.sum().backward()
        optimizer.step()
    trace = read(tmp_path)
    last = next(r for r in trace.records if r.event == Event.STEP)
    kept = tensor_of(trace, last, Part.PARAMETERS, "0")
    assert kept.dtype == dtype
    assert same_bits(kept, p)
    assert tensor_of(trace, trace.records[-1], Part.BUFFERS, "eight").dtype == torch.float8_e5m2


def test_a_trace_that_could_not_be_read_back_ends_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(trace_file, "MOST_VALUES", 10)
    model, optimizer, *_ = things()
    with pytest.warns(RecordingWarning, match="more than 10 values at one event"):  # noqa: SIM117
        with gradparity.record(model, optimizer, tmp_path):
            step(model, optimizer)
    assert "more than 10 values" in read(tmp_path).notes[0]


@pytest.mark.long
def test_a_trace_of_very_many_groups_and_tensors_is_read_back(tmp_path):
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(10_000)]
    model = nn.ParameterList(parameters)
    optimizer = torch.optim.AdamW(parameters)
    [group] = optimizer.param_groups  # adding so many one by one, torch looks through all of them each time
    optimizer.param_groups = [{**group, "params": [p]} for p in parameters]
    with gradparity.record(model, optimizer, tmp_path):
        torch.stack(list(model)).sum().backward()
        optimizer.step()
    assert read(tmp_path).complete


def test_a_scaler_that_is_passed_by_is_seen_in_the_events(tmp_path):
    for name, passed_by in (("through", False), ("past", True)):
        model, optimizer, scaler, _ = things()
        with gradparity.record(model, optimizer, tmp_path / name):
            scaler.scale(model(X).square().mean()).backward()
            scaler.unscale_(optimizer)
            optimizer.step() if passed_by else scaler.step(optimizer)
            scaler.update()
    found = trace_difference(read(tmp_path / "through"), read(tmp_path / "past"))
    assert "scaler_step" in found.events[1]
    assert "scaler_step" not in found.events[2]
    assert not sentences(found)[0].startswith("Identical, bit for bit")
