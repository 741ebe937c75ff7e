"""While a training is watched, no value of a tensor is read: on a GPU, each read would wait for all that is queued."""

from dataclasses import replace

import pytest
import torch
from helpers import reads_of_values, slow_gpu
from torch import nn
from torch.amp.grad_scaler import GradScaler

from gradparity import record
from gradparity.auditing.watching import loss_weights, random_numbers, weight_averages
from gradparity.auditing.watching.watch import Watch

WAYS = [
    *("plain", "scaler", "rate in a tensor", "autograd.grad", "written between", "an average", "unreduced", "padding"),
    *("LBFGS", "threshold in a tensor"),
]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
        self.words = nn.Embedding(3, 6, padding_idx=0)
        self.register_buffer("average", torch.zeros(5, 6))

    def forward(self, x):
        return self.second(self.norm(self.first(x + self.words(torch.tensor([0, 1, 2, 1])))).relu())


def make(way):
    torch.manual_seed(0)
    model = Model()
    if way == "LBFGS":
        return model, torch.optim.LBFGS(model.parameters(), lr=0.01, max_iter=2)
    return model, torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01) if "rate" in way else 0.01)


def train(model, optimizer, way, microbatches):
    scaler = GradScaler("cpu", init_scale=1024.0) if way == "scaler" else None
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    each = "none" if way == "unreduced" else "mean"
    parameters = list(model.parameters())

    def backward():
        targets = torch.tensor([0, 1, 2, 0])
        loss = nn.functional.cross_entropy(model(torch.randn(4, 6)), targets, reduction=each).mean() / microbatches
        if way == "autograd.grad":
            for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                p.grad = g if p.grad is None else p.grad + g
        else:
            (loss if scaler is None else scaler.scale(loss)).backward()
        if way == "written between":
            for p in parameters:
                p.grad.copy_(p.grad.bfloat16())
        return loss

    for _ in range(1 if microbatches == 4 else 2):
        if way == "LBFGS":
            optimizer.step(lambda: (optimizer.zero_grad(), backward())[1])
            continue
        for _ in range(microbatches):
            backward()
        if scaler is not None:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, torch.tensor(0.1) if "threshold" in way else 0.1)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        if way == "an average":
            with torch.no_grad():
                model.average.lerp_(model.first.weight, 0.1)
        scheduler.step()
        optimizer.zero_grad()


@pytest.fixture
def reads(monkeypatch):
    """Return the reads of values, from now on, of tensors as on a GPU."""
    events = slow_gpu.make_late(monkeypatch)
    monkeypatch.setattr(weight_averages, "is_on_host", lambda tensor: False)
    monkeypatch.setattr(random_numbers, "random_digest", lambda: "")  # a GPU's generator is on the host
    for module in ("backward_facts", "found_optimizers"):
        monkeypatch.setattr(f"gradparity.auditing.watching.{module}.random_digest", lambda: "")
    yield reads_of_values.noted_reads(monkeypatch)
    assert events, "else nothing was hashed"
    slow_gpu.forget_arrangements()


def watched(way, microbatches, reads=()):
    watch, (model, optimizer) = Watch(), make(way)
    watch.add(optimizer, model)
    with watch.watching():
        train(model, optimizer, way, microbatches)
        seen = list(reads)
    assert watch.fault is None
    return watch, seen


@pytest.mark.parametrize("microbatches", [1, 4])
@pytest.mark.parametrize("way", WAYS)
def test_an_audit_reads_no_value(way, microbatches, reads):
    assert watched(way, microbatches, reads)[1] == []


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("scaler", "autograd.grad")])
def test_a_recording_reads_no_value(way, reads, tmp_path):
    model, optimizer = make(way)
    with record(model, optimizer, tmp_path / "trace", strict=True):
        train(model, optimizer, way, 2)
        seen = list(reads)
    assert seen == []


@pytest.mark.parametrize("read", [lambda x: x.item(), bool, lambda x: torch.equal(x, x), repr, lambda x: x.tolist()])
def test_a_read_would_be_noted(read, reads, monkeypatch):
    monkeypatch.setattr(weight_averages.Averages, "look", lambda self, trainee: read(torch.ones(())))
    assert watched("plain", 1, reads)[1]


def numbers_of(watch):
    """Return what the events say beside digests, which are not those of the CPU."""
    facts = watch.facts()
    said = [
        replace(event.what, **{name: "" for name in vars(event.what) if name.startswith(("weights", "state", "loss"))})
        for story in facts.stories
        for event in story.events
    ]
    losses = [getattr(event.what, "losses", ()) for story in facts.stories for event in story.events]
    return said, losses, [replace(move, line=None) for move in facts.averages]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_read_late_is_what_is_read_at_once(way, monkeypatch):
    here = numbers_of(watched(way, 2)[0])
    slow_gpu.make_late(monkeypatch)
    monkeypatch.setattr(weight_averages, "is_on_host", lambda tensor: False)
    late = numbers_of(watched(way, 2)[0])
    slow_gpu.forget_arrangements()
    assert late == here
    assert bool(here[2]) == (way == "an average")


def test_a_training_goes_on_if_there_is_no_memory_for_a_copy(monkeypatch):
    def no_memory(self):
        raise torch.OutOfMemoryError("CUDA out of memory")

    model, _ = make("plain")
    loss = nn.functional.cross_entropy(model(torch.randn(4, 6)), torch.tensor([0, 1, 2, 0]))
    for whole in (True, False):
        reading = loss_weights.Reading([loss.grad_fn], ())
        with reading, monkeypatch.context() as short:
            if not whole:
                short.setattr(torch.Tensor, "clone", no_memory)
            loss.backward(retain_graph=True)
        assert len(reading.weights()) == whole
