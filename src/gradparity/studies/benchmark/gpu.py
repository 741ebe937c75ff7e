"""The cost of watching a training on a GPU, where the training only issues work, and must never be made to wait."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias

import torch

import gradparity
from gradparity.errors import UserError
from gradparity.parity.lockstep import LockstepRun, lockstep
from gradparity.processes.determinism import prepare_device
from gradparity.studies.benchmark.clock import in_turn, seconds_of
from gradparity.studies.benchmark.presentation import Bar, part_result
from gradparity.studies.benchmark.timed_models import (
    config,
    lanes_and_window,
    parameter_count,
    transformer,
    unwatched_step,
)
from gradparity.studies.benchmark.watched_steps import AUDIT, HASHES, LOCKSTEP, RECORD, hashing, one_step
from gradparity.studies.benchmark.watching_cost import WatchingCost, cost_of, ways_figure, ways_table
from gradparity.studies.result import Result
from gradparity.studies.tasks import Batch
from gradparity.training import Window

DEVICE: Final = "cuda"
BARE: Final = "bare"
MANUAL: Final = "manual route"

SIZE: Final = (768, 12)
"""Width and layers of the transformer: 85 million parameters."""

SEQUENCES: Final = 128
"""Sequences of 64 characters in a microbatch."""

STEPS: Final = 5
"""Steps that are timed together: between them, nothing waits for the GPU."""

_WHY = (
    "Steps are issued one after the other, and the GPU is waited for after the last. A kernel reads all tensors of an "
    "event once; their digests are read when they are there. Lockstep compares bits, so it waits at each phase."
)

_Watching: TypeAlias = Callable[[], AbstractContextManager[object]]


def measure_on_gpu(full: bool, rounds: int, bar: Bar) -> Result:
    """Measure the manual route, lockstep, recording, audit and DebugMode's hashes in bf16, with 1 and 4 microbatches.

    Raises:
        UserError: if torch finds no GPU.
    """
    if DEVICE == "cuda" and not torch.cuda.is_available():
        raise UserError("the part gpu measures on a GPU, and torch finds none here; leave it out of --only")
    prepare_device(DEVICE)
    tick, found = bar("GPU", 4 * rounds), list[WatchingCost]()
    for k in (1, 4):
        training = config(k=k, microbatch=SEQUENCES, precision="bf16", device=DEVICE)
        (reference, candidate), window = lanes_and_window(transformer(*SIZE), ("backward", "manual"), training)
        found += costs_on_device(f"K={k}", reference, candidate, window, rounds, tick)
    return part_result("gpu", _sentence(found), _WHY, [ways_table("On a GPU", found)], ways_figure(found), found)


def costs_on_device(
    name: str,
    reference: LockstepRun,
    candidate: LockstepRun,
    window: Window[Batch],
    rounds: int,
    tick: Callable[[], object],
) -> list[WatchingCost]:
    """Return the cost of each way for two lanes on one device, against steps that are not watched."""
    compared = lockstep(reference, candidate, repeat(window))
    next(compared)  # the comparison at the start
    both = in_turn(
        [
            lambda: {BARE: watched(nullcontext, reference, window), MANUAL: watched(nullcontext, candidate, window)},
            lambda: {LOCKSTEP: each_of(partial(one_step, compared))},
        ],
        rounds,
        tick,
    )
    with TemporaryDirectory() as folder:
        traces = map(Path(folder).joinpath, map(str, count()))
        run = reference.run
        ways: dict[str, _Watching] = {
            BARE: nullcontext,
            RECORD: lambda: gradparity.record(run.model, run.optimizer, next(traces), scheduler=run.scheduler),
            AUDIT: lambda: gradparity.audit(run.model, run.optimizer, steps=1_000_000),
        }
        hashes = partial(each_of, partial(_hashed, reference, window), 1)
        alone = in_turn(
            [*(partial(_named, way, how, reference, window) for way, how in ways.items()), lambda: {HASHES: hashes()}],
            rounds,
            tick,
        )
        memory = {way: added_peak(ways[way], reference, window) / _size(reference) for way in (RECORD, AUDIT)}
    pairs = [one + other for one, other in zip(both[BARE], both[MANUAL], strict=True)]
    measured = [(MANUAL, both[BARE], both[MANUAL]), (LOCKSTEP, pairs, both[LOCKSTEP])]
    measured += [(way, alone[BARE], alone[way]) for way in (RECORD, AUDIT, HASHES)]
    return [cost_of(name, parameter_count(reference), *one, memory.get(one[0])) for one in measured]


def _size(lane: LockstepRun) -> int:
    """Return the bytes of the parameters."""
    return sum(p.nbytes for p in lane.run.parameters)


def watched(way: _Watching, lane: LockstepRun, window: Window[Batch]) -> float:
    """Return the seconds of a step in one watching, after two that are not timed: they learn names and fill tables."""
    with way():
        for _ in range(2):
            step(lane, window)
        return each_of(partial(step, lane, window))


def step(lane: LockstepRun, window: Window[Batch]) -> None:
    """Make one step, with the random numbers that the lane draws in lockstep too."""
    with lane.random.active():
        unwatched_step(lane, window)


def each_of(step: Callable[[], object], steps: int = STEPS) -> float:
    """Return the seconds of one of ``steps`` steps that are issued one after the other."""

    def all_of_them() -> None:
        for _ in range(steps):
            step()
        wait()

    wait()
    return seconds_of(all_of_them) / steps


def wait() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def added_peak(way: _Watching, lane: LockstepRun, window: Window[Batch]) -> int:
    """Return the bytes on the GPU that watching a step adds to the most memory that the step holds at once."""
    return _peak(way, lane, window) - _peak(nullcontext, lane, window)


def _peak(way: _Watching, lane: LockstepRun, window: Window[Batch]) -> int:
    with way():
        step(lane, window)
        wait()
        if not torch.cuda.is_available():
            return 0
        torch.cuda.reset_peak_memory_stats()
        step(lane, window)
        return torch.cuda.max_memory_allocated()


def _named(name: str, way: _Watching, lane: LockstepRun, window: Window[Batch]) -> dict[str, float]:
    return {name: watched(way, lane, window)}


def _hashed(lane: LockstepRun, window: Window[Batch]) -> None:
    with hashing():
        step(lane, window)


def _sentence(found: list[WatchingCost]) -> str:
    """Return the result in one sentence."""
    names = list(dict.fromkeys(one.model for one in found))
    steps = " and ".join(f"{next(one.bare for one in found if one.model == name):.0f} ms ({name})" for name in names)

    def of(way: str) -> str:
        return f"{way} {' and '.join(f'{one.time.median:.3f}' for one in found if one.way == way)}"

    ways = ", ".join(map(of, (MANUAL, LOCKSTEP, RECORD, AUDIT)))
    return f"On a GPU, times as long as the same steps of {steps} unwatched: {ways}."
