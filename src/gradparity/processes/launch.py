"""Processes on this machine that train together, over gloo and the loopback interface, each rank with one thread.

Whether a rank ends or hangs, :func:`launch` returns or raises in bounded time, and leaves no process behind.
It is for tests, and for experiments that start their ranks themselves. For real work use torchrun.
"""

import faulthandler
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore  # torch.distributed has it too, where type checkers miss it

from gradparity.errors import UserError
from gradparity.processes.determinism import prepare_worker
from gradparity.processes.failed_ranks import RankEnd, diagnose_failure, end_of_rank, place_in_dump
from gradparity.processes.fork_server import fork_context

_GRACE = 1.0
"""Seconds in which a rank may still report its error, after another rank has noticed that it is gone."""

_DUMP = 10.0
"""Seconds in which a running rank must write its stack; none needs that long, unless it is suspended."""

_START = 120.0
"""Seconds in which all ranks must have started."""


@dataclass(frozen=True)
class _Rank:
    """A process, and the connection over which it reports how it ended."""

    number: int
    process: BaseProcess
    connection: Connection
    stack: Path
    """The file to which it writes its stack when it gets a signal."""


def launch(
    function: Callable[..., Any],
    ranks: int,
    *arguments: object,
    seconds: float = 120,
    patience: float = 30,
    device: str = "cpu",
) -> list[Any]:
    """Call ``function(*arguments)`` in ``ranks`` new processes with a process group, and return what each returned.

    Args:
        function: of a module that can be imported. Its arguments and results are pickled.
        ranks: number of ranks.
        arguments: the same for all; a rank gets its number from ``torch.distributed``.
        seconds: time in which all must finish, counted from when all have started.
        patience: seconds that a rank waits for another in a collective.
        device: ``cpu``, over gloo; or ``cuda``, over NCCL and a GPU for each rank.

    Raises:
        UserError: if there are fewer GPUs than ranks, or if a rank died, raised, hung or made different collectives;
            one sentence says which rank, and where.
    """
    if device == "cuda" and torch.cuda.device_count() < ranks:
        raise UserError(f"{ranks} ranks need a GPU each, and torch finds {torch.cuda.device_count()} here")
    with TemporaryDirectory() as folder, ExitStack() as stack:
        started: list[_Rank] = []
        for number in range(ranks):
            rank = _start(number, ranks, Path(folder), patience, device, function, arguments)
            started.append(rank)
            stack.callback(rank.process.join)
            stack.callback(rank.process.kill)  # does nothing if it has ended
        ends = _wait_for(started, seconds)
        running = {rank.number: _place_of(rank) for rank in started if rank.number not in ends}
        if sentence := diagnose_failure(ends, running, seconds, patience):
            raise UserError(sentence)
        return [ends[rank.number].result for rank in started]


def _start(
    number: int,
    ranks: int,
    folder: Path,
    patience: float,
    device: str,
    function: Callable[..., Any],
    arguments: tuple[object, ...],
) -> _Rank:
    context = fork_context(function.__module__)
    ours, theirs = context.Pipe(duplex=False)
    stack = folder / f"stack{number}"
    process = context.Process(
        target=_run_rank,
        args=(number, ranks, folder / "store", stack, patience, device, theirs, function, arguments),
        daemon=True,
    )
    process.start()
    theirs.close()  # so that only the rank holds the other end, which closes when it dies
    return _Rank(number, process, ours, stack)


def _run_rank(
    number: int,
    ranks: int,
    store: Path,
    stack: Path,
    patience: float,
    device: str,
    connection: Connection,
    function: Callable[..., Any],
    arguments: tuple[object, ...],
) -> None:
    """Run ``function`` as one rank; the target of the new process."""
    gc.freeze()  # older objects are no garbage; a collection would copy the memory that ranks share
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(ranks)}
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"  # nothing leaves this machine
    with stack.open("w") as file:
        if hasattr(faulthandler, "register"):
            faulthandler.register(signal.SIGUSR1, file, all_threads=False)
        try:
            members = FileStore(str(store), ranks)
            members.set(f"rank{number}", "here")
            # On a busy machine ranks start at different times; their patience begins when all are here.
            members.wait([f"rank{other}" for other in range(ranks)], timedelta(seconds=_START))
            prepare_worker(device)
            if device == "cuda":
                torch.cuda.set_device(number)
            backend = {"cpu": "gloo", "cuda": "nccl"}[device]
            dist.init_process_group(
                backend, timeout=timedelta(seconds=patience), store=members, rank=number, world_size=ranks
            )
            connection.send(None)
            end = RankEnd(result=function(*arguments))
        except (Exception, SystemExit) as error:
            end = end_of_rank(error)
        connection.send(end)  # before others can notice that this rank is gone
        if dist.is_initialized():
            dist.destroy_process_group()


def _wait_for(started: list[_Rank], seconds: float) -> dict[int, RankEnd]:
    """Return the ends of ranks, in that order; stop when all have ended, one fails by itself, or the time is up."""
    deadline, here = time.monotonic() + 2 * _START, 0
    ends: dict[int, RankEnd] = {}
    open_ones = {rank.connection: rank for rank in started}
    while open_ones and not any(end.failed and end.waited is None for end in ends.values()):
        if any(end.failed for end in ends.values()):
            deadline = min(deadline, time.monotonic() + _GRACE)
        ready = wait(list(open_ones), timeout=max(0.0, deadline - time.monotonic()))
        if not ready:
            break
        for connection in ready:
            assert isinstance(connection, Connection)
            rank = open_ones[connection]
            end = _report_of(rank)
            if end is None:
                here += 1
                deadline = time.monotonic() + seconds if here == len(started) else deadline
            else:
                ends[rank.number] = end
                del open_ones[connection]
    return ends


def _report_of(rank: _Rank) -> RankEnd | None:
    """Return the end of a rank; ``None`` if it reports that it has begun."""
    try:
        report = rank.connection.recv()
        assert report is None or isinstance(report, RankEnd)
        return report
    except EOFError:
        rank.process.join()
        return RankEnd(died=rank.process.exitcode)


def _place_of(rank: _Rank) -> str:
    """Return the line that a running rank is at; empty if it does not write its stack."""
    if rank.process.pid is not None and hasattr(signal, "SIGUSR1"):
        os.kill(rank.process.pid, signal.SIGUSR1)
        until, stack = time.monotonic() + _DUMP, ""
        whole = f" in {_run_rank.__name__}\n"  # the outermost frame that counts: the stack is written up to there
        while whole not in stack and rank.process.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
            stack = rank.stack.read_text() if rank.stack.exists() else ""
        return place_in_dump(stack)
    return ""
