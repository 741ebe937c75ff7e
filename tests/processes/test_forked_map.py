"""Forks give what this process would give, in order, and leave nothing behind."""

import multiprocessing
import os
import time
from contextlib import closing

import pytest

from gradparity.processes import forked_map as module
from gradparity.processes.forked_map import forked_map

MANY = range(40)


def test_results_come_in_order_and_from_several_processes():
    found = list(forked_map(lambda n: (n, os.getpid(), time.sleep(0.01)), MANY, processes=2))
    assert [n for n, *_ in found] == list(MANY)
    pids = {pid for _, pid, _ in found}
    assert len(pids) == 2
    assert os.getpid() not in pids


@pytest.mark.parametrize(("items", "processes"), [(range(3), 2), (MANY, 1)])
def test_few_items_and_one_core_start_no_process(items, processes):
    assert {*forked_map(lambda _: os.getpid(), items, processes)} == {os.getpid()}


def test_nothing_is_forked_where_a_fork_could_compute_no_gradient(monkeypatch):
    monkeypatch.setattr(module.torch.accelerator, "is_available", lambda: True)
    assert {*forked_map(lambda _: os.getpid(), MANY, 2)} == {os.getpid()}


def test_who_stops_early_leaves_no_process():
    with closing(forked_map(lambda n: n, MANY, 2)) as results:
        assert next(results) == 0
        assert multiprocessing.active_children()
    assert not multiprocessing.active_children()


def test_an_error_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(forked_map(lambda n: 1 / (n - 20), MANY, 2))


def test_what_a_killed_process_leaves_undone_is_done_here():
    here = os.getpid()

    def kill_the_fork(n):
        if n == 20 and os.getpid() != here:
            os._exit(9)
        return n

    assert list(forked_map(kill_the_fork, MANY, 2)) == list(MANY)
