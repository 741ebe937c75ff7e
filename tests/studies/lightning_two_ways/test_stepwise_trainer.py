import threading

import pytest
import torch

from gradparity.studies.lightning_two_ways.stepwise_trainer import moments_of
from gradparity.training import Moment, Phase

MOMENTS = [Moment(Phase.FORWARD, 0), Moment(Phase.ACCUMULATED, 0), Moment(Phase.STEPPED)]


def threads_in_lockstep():
    return [t for t in threading.enumerate() if t.name == "a loop in lockstep"]


def test_a_loop_that_calls_becomes_an_iterator_that_is_called():
    assert list(moments_of(lambda stop: [stop(m) for m in MOMENTS])) == MOMENTS
    assert threads_in_lockstep() == []


def test_the_loop_waits_until_it_is_asked_to_go_on():
    done = []

    def loop(stop):
        for moment in MOMENTS:
            done.append(moment)
            stop(moment)

    moments = moments_of(loop)
    assert done == []
    for n, _ in enumerate(moments, start=1):
        assert done == MOMENTS[:n]


def test_an_exception_in_the_loop_is_raised_by_the_iterator():
    def loop(stop):
        stop(MOMENTS[0])
        raise KeyError("in the loop")

    moments = moments_of(loop)
    next(moments)
    with pytest.raises(KeyError, match="in the loop"):
        next(moments)
    assert threads_in_lockstep() == []


def test_a_loop_that_nobody_waits_for_is_ended_where_it_stands():
    ended = []

    def loop(stop):
        try:
            for moment in MOMENTS:
                stop(moment)
        finally:
            ended.append(True)

    moments = moments_of(loop)
    next(moments)
    assert len(threads_in_lockstep()) == 1
    moments.close()
    assert ended == [True]
    assert threads_in_lockstep() == []


def test_the_loop_has_the_thread_count_of_its_caller_and_its_own_grad_mode():
    seen = []

    def loop(stop):
        seen.extend([torch.get_num_threads(), torch.is_grad_enabled()])
        stop(MOMENTS[0])

    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            list(moments_of(loop))
    finally:
        torch.set_num_threads(1)
    assert seen == [2, True]
