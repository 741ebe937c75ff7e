"""On a GPU an audit goes on and reads its looks later: it finds what it finds on the CPU."""

import pickle

import pytest
import torch
from helpers import slow_gpu as slow_gpus
from torch import nn

from gradparity import audit
from gradparity.auditing.gradient_looks import Look
from gradparity.auditing.watching.watch import Watch
from gradparity.parity.on_gpu.plain import plain_rows
from gradparity.trace import late_digests
from gradparity.trace.digest import Hash
from gradparity.trace.fingerprint import Fingerprint
from gradparity.trace.late_hash import LateHash


class Written:
    """An event of a GPU that happens when it is waited for."""

    waits = 0
    lost = False

    def __init__(self):
        self.happened = False

    def query(self):
        return self.happened

    def synchronize(self):
        if Written.lost:
            raise RuntimeError("the GPU is lost")
        Written.waits += 1
        self.happened = True


@pytest.fixture
def slow_gpu(monkeypatch):
    slow_gpus.hash_by_sums(monkeypatch)
    monkeypatch.setattr(Written, "waits", 0)
    monkeypatch.setattr(
        late_digests, "_start", lambda some, which: late_digests._Batch(which, plain_rows(some), Written())
    )
    real = LateHash
    for module in ("watched_optimizer", "function_watchers"):
        name = f"gradparity.auditing.watching.{module}.late_hash_of_all"
        monkeypatch.setattr(name, lambda tensors, more="", by=None: real([*tensors], more, by))
    yield Written
    slow_gpus.forget_arrangements()


def loop(model, optimizer, scaled=False, by_hand=False):
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        for _ in range(2):
            loss = model(torch.randn(4, 6, generator=generator)).square().mean() / 2
            if by_hand:
                for p, g in zip(model.parameters(), torch.autograd.grad(loss, [*model.parameters()]), strict=True):
                    p.grad = g if p.grad is None else p.grad + g
            else:
                loss.backward()
        if scaled:
            for p in model.parameters():
                p.grad.data.mul_(0.5)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not scaled:
            optimizer.zero_grad()


def make():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3))
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def watched(**how):
    watch, (model, optimizer) = Watch(), make()
    watch.add(optimizer, model)
    with watch.watching():
        loop(model, optimizer, **how)
    return watch


def shape_of(facts):
    """Return the events, with all digests replaced by the order in which they were first seen."""
    seen = {}

    def number(digest):
        return seen.setdefault(digest, len(seen))

    def plain(event):
        what = event.what
        names = [
            n for n in ("weights", "weights_before", "weights_after", "state_before", "state_after") if hasattr(what, n)
        ]
        looks = [[None if g is None else number(g.digest) for g in look] for look in (event.before, event.after)]
        return type(what).__name__, looks, [number(getattr(what, n)) for n in names]

    return [[plain(event) for event in story.events] for story in facts.stories]


@pytest.mark.parametrize("how", [{}, {"scaled": True}, {"by_hand": True}])
def test_the_facts_are_those_of_the_cpu(how, request):
    here = shape_of(watched(**how).facts())
    request.getfixturevalue("slow_gpu")
    facts = watched(**how).facts()
    assert shape_of(facts) == here
    looks = [look for story in facts.stories for event in story.events for look in (event.before, event.after)]
    assert all(look.ready() for look in looks if isinstance(look, Look))
    assert {g.by for look in looks for g in look if g is not None} == {Hash.SUMS}
    assert pickle.loads(pickle.dumps(facts.stories[0].events)) == facts.stories[0].events


def test_the_findings_are_those_of_the_cpu(request):
    def findings():
        model, optimizer = make()
        with audit(model, optimizer) as report:
            loop(model, optimizer, scaled=True)
        return [(finding.rule, finding.verdict) for finding in report.report.findings]

    here = findings()
    assert here
    request.getfixturevalue("slow_gpu")
    assert findings() == here


def test_a_step_is_looked_at_without_a_wait(slow_gpu):
    watch, (model, optimizer) = Watch(), make()
    watch.add(optimizer, model)
    with watch.watching():
        model(torch.ones(2, 6)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        assert slow_gpu.waits == 0
    assert watch.facts().stories[0].steps == 1
    assert slow_gpu.waits > 5


def test_several_microbatches_are_looked_at_without_a_wait(slow_gpu):
    watch, (model, optimizer) = Watch(), make()
    watch.add(optimizer, model)
    with watch.watching():
        for _ in range(3):
            model(torch.ones(2, 6)).sum().backward()
        optimizer.step()
        assert slow_gpu.waits == 0


def test_if_the_gpu_is_lost_the_events_before_it_are_kept(slow_gpu, monkeypatch):
    watch, (model, optimizer) = Watch(), make()
    watch.add(optimizer, model)
    with watch.watching():
        loop(model, optimizer)
        whole = len(watch.known._trainees[id(optimizer)].story.events)
        monkeypatch.setattr(Written, "lost", True)
    events = watch.facts().stories
    assert sum(len(story.events) for story in events) < whole


def test_a_look_is_a_sequence_whose_length_needs_no_wait(slow_gpu):
    look = Look([torch.ones(3), None, torch.zeros(2)])
    assert (len(look), slow_gpu.waits) == (3, 0)
    assert [one is None for one in look] == [False, True, False]
    assert look[0].norm == pytest.approx(3**0.5)
    assert (slow_gpu.waits, look.ready(), isinstance(look[2], Fingerprint)) == (1, True, True)
