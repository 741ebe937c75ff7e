"""What is timed as watching is watching: it compares what a step changes, and notices a difference."""

from itertools import repeat

import pytest
import torch

from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer
from gradparity.parity.lockstep import lockstep
from gradparity.studies.benchmark.timed_models import config, lanes_and_window, transformer, unwatched_step
from gradparity.studies.benchmark.watched_steps import (
    AUDIT,
    CLOSE,
    EQUAL,
    HASHES,
    LET_GO,
    LOCKSTEP,
    RECORD,
    added_memory,
    assert_close,
    assert_equal,
    auditing,
    cloning,
    let_go_step,
    one_step,
    written_tensors,
)
from gradparity.studies.benchmark.watching_cost import watching_costs
from gradparity.training import Moment, Phase


def tiny():
    return lanes_and_window(transformer(16, 1), ("backward", "manual"), config(microbatch=2))


def test_lockstep_recording_audit_and_the_others_are_held_against_the_same_steps_unwatched():
    lanes, window = tiny()
    found = watching_costs("tiny", lanes, window, 2, lambda: None, others=True)
    assert [one.way for one in found] == [LOCKSTEP, RECORD, AUDIT, LET_GO, CLOSE, EQUAL, HASHES]
    assert all(one.parameters == sum(p.numel() for p in lanes[0].run.model.parameters()) for one in found)
    assert all(one.bare > 0 < one.time.median for one in found)


def test_an_audit_that_is_timed_looks_at_the_step(monkeypatch):
    (lane, _), window = tiny()
    looked = []
    monkeypatch.setattr(WatchedOptimizer, "weights", lambda _: looked.append(1) or "")
    with auditing(lane.run):
        unwatched_step(lane, window)
    assert looked


def test_a_step_is_timed_as_let_go_when_the_audit_looks_no_more(monkeypatch):
    (lane, _), window = tiny()
    counts = set()

    def look(_):
        counts.update(float(state["step"]) for state in lane.run.optimizer.state.values())
        return ""

    monkeypatch.setattr(WatchedOptimizer, "weights", look)
    let_go_step(lane, window)
    assert counts == {1}, "weights were not looked at in the first step, or were in the second"


@pytest.mark.parametrize(("precision", "k"), [("fp32", 1), ("fp16", 4)])
@pytest.mark.parametrize("route", ["backward", "manual"])
def test_watching_adds_less_memory_than_one_copy_of_the_gradients(route, precision, k):
    (lane,), window = lanes_and_window(transformer(64, 2), (route,), config(microbatch=1, k=k, precision=precision))
    gradients = sum(p.nbytes for p in lane.run.parameters)
    assert 0 <= max(added_memory(lane, window).values()) <= gradients


def test_a_copy_that_is_kept_counts_as_memory(monkeypatch):
    (lane, _), window = tiny()
    kept, weights = [], WatchedOptimizer.weights

    def keeps(trainee):
        kept.append([p.detach().clone() for p in trainee.parameters()])
        return weights(trainee)

    monkeypatch.setattr(WatchedOptimizer, "weights", keeps)
    assert added_memory(lane, window)[AUDIT] > sum(p.nbytes for p in lane.run.parameters)


def test_lanes_that_differ_are_not_timed_as_if_they_did_not():
    (reference, candidate), window = tiny()
    compared = lockstep(reference, candidate, repeat(window))
    next(compared)
    one_step(compared)
    with torch.no_grad():
        candidate.run.model.position[0, 0] += 1
    with pytest.raises(AssertionError, match="the lanes differ"):
        one_step(compared)


def test_the_others_look_at_gradients_parameters_and_moments():
    (lane, _), window = tiny()
    unwatched_step(lane, window)
    parameters = len(lane.run.parameters)
    assert (
        len(list(written_tensors(lane.run, Phase.ACCUMULATED)))
        == len(list(written_tensors(lane.run, Phase.CLIPPED)))
        == parameters
    )
    assert len(list(written_tensors(lane.run, Phase.STEPPED))) == (1 + 3) * parameters, (
        "AdamW keeps a count and two moments"
    )
    assert list(written_tensors(lane.run, Phase.FORWARD)) == []


@pytest.mark.parametrize("same", [assert_close, assert_equal])
def test_the_others_would_notice_a_difference(same):
    (lane, _), window = tiny()
    unwatched_step(lane, window)
    with cloning(lane.run, same) as look:
        look(Moment(Phase.STEPPED))
    with pytest.raises(AssertionError):
        same(torch.zeros(2), torch.tensor([0.0, 1e-30]))
