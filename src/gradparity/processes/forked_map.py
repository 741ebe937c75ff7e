"""A function called with many arguments on several cores, in forks of this process, which start in milliseconds."""

import gc
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, TypeVar

import torch

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_MOST_PROCESSES = 8
_FEWEST_ITEMS = 12
"""Fewer are not worth the start of processes."""

_work: Callable[[int], Any]
"""The function of a worker, in its own process."""


def number_of_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def forked_map(
    function: Callable[[_Item], _Result], items: Sequence[_Item], processes: int | None = None
) -> Generator[_Result]:
    """Yield ``function(item)`` for each item, in order; close the iterator to stop early.

    Everything is computed in this process where no forks can help: with one core, for few items, in a process that may
    have no children, or if torch has a GPU, since no gradient can be computed in a fork of a process that used it.

    Args:
        function: gives the same result in any process; its results are pickled, the items are not.
        items: the arguments.
        processes: number of processes; by default as many as there are cores.
    """
    processes = min(processes or number_of_cores(), _MOST_PROCESSES)
    if processes == 1 or len(items) < _FEWEST_ITEMS or not _can_fork():
        yield from map(function, items)
        return
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("fork"), _become_worker, (lambda index: function(items[index]),)
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about threads, which a fork loses; here they are those of NumPy's BLAS
            futures: list[Future[_Result]] = [pool.submit(_call, index) for index in range(len(items))]
        for item, future in zip(items, futures, strict=True):
            try:
                result = future.result()
            except BrokenProcessPool:  # such as killed for lack of memory
                result = function(item)
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _can_fork() -> bool:
    if "fork" not in multiprocessing.get_all_start_methods() or multiprocessing.current_process().daemon:
        return False
    return not torch.accelerator.is_available()


def _become_worker(work: Callable[[int], Any]) -> None:
    """Make a new process ready to work, until its parent ends it or is gone."""
    global _work
    _work = work
    gc.freeze()  # objects made before need no garbage collection, which would copy the memory that processes share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends this process
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _call(index: int) -> Any:
    return _work(index)
