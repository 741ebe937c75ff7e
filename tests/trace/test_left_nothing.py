"""Whatever a loop does, what a recorder has put into torch, the model and the optimizer is gone afterwards."""

import copy
import io
import threading
from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR
from torch.utils.hooks import RemovableHandle

import gradparity
from gradparity.check.running.global_state import torch_functions
from gradparity.trace import step_recorder, wrapping
from gradparity.trace.snapshot import TrainingObjects
from gradparity.trace.step_recorder import Recorder
from left import of_a_recorder

HOOKS = {(f"torch.optim.optimizer._global_optimizer_{when}_hooks", "hook") for when in ("pre", "post")}


def things():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, GradScaler("cpu", init_scale=2.0), ExponentialLR(optimizer, 0.9)


def train(model, optimizer, scaler, scheduler):
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(3, 4)).sum()).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()


def recorder_of(made, write=lambda record, seen: None):
    return Recorder(TrainingObjects(*made), write)


@pytest.fixture
def patches(monkeypatch):
    """What the recorder asks to have patched."""
    asked = []

    def noticed(owner, name, wrapper):
        asked.append((owner, name))
        return wrapping.wrapped(owner, name, wrapper)

    monkeypatch.setattr(step_recorder, "wrapped", noticed)
    return asked


def called(owner):
    return (
        owner.__name__
        if hasattr(owner, "__path__") or not isinstance(owner, type)
        else f"{owner.__module__}.{owner.__name__}"
    )


def test_every_patch_and_hook_is_in_place_while_it_watches_and_none_afterwards(patches):
    made, before = things(), torch_functions()
    assert not of_a_recorder(*made)
    with recorder_of(made).watching():
        found = of_a_recorder(*made)
        assert {(called(owner), name) for owner, name in patches} | HOOKS <= found
        assert len(patches) >= 9
        train(*made)
    assert not of_a_recorder(*made)
    assert torch_functions() == before


@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_wherever_the_loop_is_given_up_nothing_is_left(raised):
    seen, before = [], torch_functions()
    made = things()
    with recorder_of(made, lambda record, _: seen.append(record.event)).watching():
        train(*made)
    assert len(seen) > 15
    for event in range(len(seen)):
        made, told = things(), []

        def write(record, _, told=told, event=event):
            told.append(record.event)
            if len(told) > event:
                raise raised("enough was seen")

        with pytest.raises(raised), recorder_of(made, write).watching():
            train(*made)
        assert told == seen[: event + 1]
        assert not of_a_recorder(*made)
    assert torch_functions() == before


def test_a_patch_that_is_forgotten_is_found(patches):
    made = things()
    with recorder_of(made).watching():
        pass
    for forgotten in list(patches):

        @contextmanager
        def forgetful(owner, name, wrapper, forgotten=forgotten):
            with wrapping.wrapped(owner, name, wrapper):
                ours = vars(owner)[name]
                yield
            if (owner, name) == forgotten:
                setattr(owner, name, ours)

        owner, name = forgotten
        its_own, original = name in vars(owner), vars(owner).get(name)
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(step_recorder, "wrapped", forgetful)
            with recorder_of(made).watching():
                pass
        assert of_a_recorder(*made), f"{name} was left, and not found"
        setattr(owner, name, original) if its_own else delattr(owner, name)
        assert not of_a_recorder(*made)


def test_a_hook_that_is_forgotten_is_found(monkeypatch):
    made, handles, remove = things(), [], RemovableHandle.remove
    monkeypatch.setattr(RemovableHandle, "remove", lambda self: handles.append(self))
    with recorder_of(made).watching():
        pass
    assert of_a_recorder(*made) == HOOKS
    for handle in handles:
        remove(handle)
    assert not of_a_recorder(*made)


def test_a_model_that_is_watched_can_be_copied_and_saved_whole(tmp_path):
    model, optimizer, scaler, scheduler = things()
    with gradparity.record(model, optimizer, tmp_path / "trace", scaler=scaler, scheduler=scheduler):
        train(model, optimizer, scaler, scheduler)
        average, everything = copy.deepcopy(model), copy.deepcopy((model, optimizer, scheduler))
        torch.save(model, file := io.BytesIO())
        assert {place for place in of_a_recorder(average) if "hook" in place} == HOOKS, "none is on the copy itself"
        average(torch.ones(3, 4))
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for other in (average, everything[0], loaded):
        assert not of_a_recorder(other)
        assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))


def test_a_patched_function_that_a_loop_kept_does_nothing_after_the_recording():
    made, told = things(), []
    model, optimizer, scaler, _ = made
    taken = GradScaler.step
    with recorder_of(made, lambda record, seen: told.append(record)).watching():
        zero_grad, step, method = optimizer.zero_grad, scaler.step, GradScaler.step
        train(*made)
    number = len(told)
    model(torch.ones(3, 4)).sum().backward()
    zero_grad()
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(AssertionError, match="No inf checks"):
        step(optimizer)
    assert len(told) == number
    assert method is not taken is GradScaler.step


def test_a_patch_of_the_loop_over_ours_stays():
    made = things()
    theirs = lambda self, *args, **kwargs: None  # noqa: E731
    before = GradScaler.update
    try:
        with recorder_of(made).watching():
            GradScaler.update = theirs
        assert GradScaler.update is theirs
    finally:
        GradScaler.update = before
    assert not of_a_recorder(*made)


def test_a_backward_in_a_thread_that_outlives_the_recording_is_not_disturbed(tmp_path):
    model, optimizer, scaler, scheduler = things()
    begun, over, ended = threading.Event(), threading.Event(), []

    def wait(gradient):
        begun.set()
        over.wait(60)

    def go_on():
        model[0].weight.register_hook(wait)
        model(torch.ones(3, 4)).sum().backward()
        ended.append(True)

    with gradparity.record(model, optimizer, tmp_path, scaler=scaler, scheduler=scheduler):
        thread = threading.Thread(target=go_on)
        thread.start()
        assert begun.wait(60)
    over.set()
    thread.join()
    assert ended == [True]
