"""Ranks that fail: one sentence, in bounded time, and no process is left."""

import multiprocessing
import re

import pytest
import torch

import ends
from gradparity.errors import UserError
from gradparity.processes.launch import launch
from patience import with_some_patience


def test_every_rank_returns_its_result_and_has_one_thread():
    assert launch(ends.sums, 3, 10) == [(0, 33, 1), (1, 33, 1), (2, 33, 1)]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (ends.dies, ("exit",), r"rank 1 died \(exit code 3\) without an exception; the other ranks were stopped"),
        (ends.dies, ("kill",), r"rank 1 died \(killed by SIGKILL\) without an exception; the other ranks were stopped"),
        (ends.raises, (), r"rank 1 raised ValueError: no such batch \(ends.py, line \d+ in raises\); the other"),
        (ends.exchanges, ((3, 2),), r"rank 1 had finished while rank 0 still waited at ends.py, line \d+ in exchanges; make as"),
    ],
)  # fmt: skip
def test_a_failed_rank_is_named_in_one_line(function, arguments, words):
    assert_fails(words, function, 2, *arguments)


def assert_fails(words, function, ranks, *arguments, **patience):
    with pytest.raises(UserError) as raised:
        launch(function, ranks, *arguments, **patience)
    assert re.match(words, str(raised.value)), raised.value
    assert len(str(raised.value).splitlines()) == 1
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(
    ("function", "ranks", "words"),
    [
        (ends.hangs, 2, r"rank 0 waited {} s for another rank at ends.py, line \d+ in hangs; rank 1 is at ends.py, line \d+ in hangs"),
        (ends.hangs, 3, r".*waited {} s for another rank .*; rank 1 is at ends.py, line \d+ in hangs$"),
        (ends.other_collectives, 2, r"all ranks waited for each other: rank 0 is at ends.py, line \d+ .*, rank 1 is at ends.py"),
    ],
)  # fmt: skip
def test_ranks_that_wait_for_each_other_are_named_with_their_lines(function, ranks, words):
    with_some_patience(lambda seconds: assert_fails(words.format(f"{seconds:g}"), function, ranks, patience=seconds))


def test_ranks_that_do_not_finish_are_stopped_in_time():
    words = (
        r"rank 0, rank 1 had not finished after {} s: rank 0 is at ends.py, line \d+ in all_sleep, rank 1 is at ends"
    )
    with_some_patience(lambda seconds: assert_fails(words.format(f"{seconds:g}"), ends.all_sleep, 2, seconds=seconds))


def test_more_ranks_than_gpus_are_refused_before_any_starts():
    gpus = torch.cuda.device_count()
    with pytest.raises(UserError, match=f"^{gpus + 2} ranks need a GPU each, and torch finds {gpus} here$"):
        launch(ends.sums, gpus + 2, 1, device="cuda")
    assert not multiprocessing.active_children()
