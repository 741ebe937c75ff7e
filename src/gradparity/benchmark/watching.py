"""What it costs to watch a training: by gradparity, and by what one would take instead, on the same work."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import count, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import Tensor
from torch.utils._debug_mode import DebugMode

import gradparity
from gradparity.benchmark.clock import Spread, in_turn, ratio, timed
from gradparity.benchmark.subjects import step, subject
from gradparity.parity.lockstep import Lane, lockstep
from gradparity.tasks import Batch, Task
from gradparity.training import Moment, Phase, Run, Window

Look = Callable[[Moment], None]
Way = AbstractContextManager[Look | None]

RECORD, LOCKSTEP = "gradparity.record", "lockstep"
CLOSE, EQUAL, HASHES = "clone, assert_close(rtol=0, atol=0)", "clone, torch.equal", "DebugMode.log_tensor_hashes"


def watching_costs(
    task: Task, microbatch: int, rounds: int, tick: Callable[[], object], peers: bool = True
) -> tuple[Mapping[str, Spread], float]:
    """How many times as long a step takes when it is watched, by way of watching; and the seconds of a bare one.

    Lockstep makes two steps, one of the reference and one of the candidate, and is held against the two alone.
    """
    (reference, candidate), window = subject(task, ("backward", "manual"), microbatch=microbatch)
    run = reference.run
    compared = lockstep(*subject(task, ("backward", "manual"), microbatch=microbatch)[0], repeat(window))
    next(compared)  # what they start from
    with TemporaryDirectory() as folder:
        traces = map(Path(folder).joinpath, map(str, count()))
        ways = {
            "bare": partial(watched_step, reference, window, nullcontext),
            "candidate": timed(step, candidate, window),
            LOCKSTEP: timed(lambda: next(found for found in compared if found.phase == Phase.STEPPED)),
            RECORD: partial(watched_step, reference, window, lambda: recording(run, next(traces))),
        }
        if peers:
            ways[CLOSE] = partial(watched_step, reference, window, lambda: cloning(run, close))
            ways[EQUAL] = partial(watched_step, reference, window, lambda: cloning(run, equal))
        seconds = in_turn(ways, rounds, tick)
    bare = seconds["bare"]
    both = [one + other for one, other in zip(bare, seconds["candidate"], strict=True)]
    costs = {name: ratio(seconds[name], both if name == LOCKSTEP else bare) for name in ways if name not in ("bare", "candidate")}
    if peers:  # it takes many times as long, so fewer rounds, of its own
        few = {"bare": ways["bare"], HASHES: partial(watched_step, reference, window, hashing)}
        slow = in_turn(few, max(2, rounds // 4), tick)
        costs[HASHES] = ratio(slow[HASHES], slow["bare"])
    return costs, sorted(bare)[len(bare) // 2]


def watched_step(lane: Lane, window: Window[Batch], way: Callable[[], Way]) -> float:
    """Seconds of one step, watched in one way; what comes before and after it is not counted."""
    with way() as look:
        began = perf_counter()
        for moment in lane.step(lane.run, window):
            if look is not None:
                look(moment)
        return perf_counter() - began


@contextmanager
def recording(run: Run, folder: Path) -> Iterator[None]:
    """By a trace in ``folder``."""
    with gradparity.record(run.model, run.optimizer, folder, scheduler=run.scheduler):
        yield


@contextmanager
def cloning(run: Run, same: Callable[[Tensor, Tensor], object]) -> Iterator[Look]:
    """As one would write it by hand: at each phase a copy of what it changes, and the copy compared."""

    def look(moment: Moment) -> None:
        for tensor in changed(run, moment.phase):
            same(tensor.clone(), tensor)

    yield look


def changed(run: Run, phase: Phase) -> Iterator[Tensor]:
    """The tensors that a phase has written; unscaling writes none in fp32."""
    if phase in (Phase.ACCUMULATED, Phase.CLIPPED):
        yield from (p.grad for p in run.parameters if p.grad is not None)
    elif phase == Phase.STEPPED:
        yield from (p.detach() for p in run.parameters)
        yield from (value for state in run.optimizer.state.values() for value in state.values())


def close(a: Tensor, b: Tensor) -> None:
    """The comparison that PyTorch's own tests use, without tolerance."""
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def equal(a: Tensor, b: Tensor) -> None:
    """The fastest one-liner; it takes -0 for +0, and a NaN for another number."""
    assert torch.equal(a, b)


@contextmanager
def hashing() -> Iterator[None]:
    """By a hash of what goes into and comes out of every operation."""
    with DebugMode(), DebugMode.log_tensor_hashes():
        yield
