"""The cost of watching a training: by gradparity, and by the alternatives, on the same work.

The cost of a step is proportional to its tokens; the cost of watching it is not. Per parameter and step, lockstep reads
28 bytes on either side: gradients at four phases, then parameters and both moments. A recording reads 24 bytes twice,
for hash and norm. Forward and backward compute 6 floating-point operations per parameter *and token*. So the share of
watching falls with the number of tokens in a step, and hardly depends on the size of the model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import count, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import torch
from torch import Tensor
from torch.utils._debug_mode import DebugMode

import gradparity
from gradparity.parity.lockstep import Comparison, LockstepRun, lockstep
from gradparity.studies.benchmark.clock import TimedWork, in_turn, seconds_of, timed
from gradparity.studies.benchmark.memory import peak_bytes
from gradparity.studies.benchmark.timed_models import unwatched_step
from gradparity.studies.tasks import Batch
from gradparity.training import Moment, Phase, Run, Window

AtMoment: TypeAlias = Callable[[Moment], None]
WatchStep: TypeAlias = Callable[[], AbstractContextManager[AtMoment | None]]

REFERENCE, CANDIDATE, BESIDE = "reference alone", "candidate alone", "candidate again"
LOCKSTEP, RECORD = "lockstep", "gradparity.record"
AUDIT, LET_GO = "gradparity.audit", "after gradparity.audit"
CLOSE, EQUAL, HASHES = "clone, assert_close", "clone, torch.equal", "DebugMode.log_tensor_hashes"


def watched_seconds(
    reference: LockstepRun,
    candidate: LockstepRun,
    window: Window[Batch],
    rounds: int,
    tick: Callable[[], object],
    others: Sequence[str],
) -> dict[str, list[float]]:
    """Return the seconds of a step alone, in lockstep, recorded, and in ``others``; each way steps both lanes."""
    run = reference.run
    compared = lockstep(reference, candidate, repeat(window))
    next(compared)  # the comparison at the start
    with TemporaryDirectory() as folder:
        traces = map(Path(folder).joinpath, map(str, count()))
        looks = {CLOSE: partial(cloning, run, assert_close), EQUAL: partial(cloning, run, assert_equal)}

        def of_both(ours: str, theirs: str, way: WatchStep = nullcontext) -> dict[str, float]:
            return {
                ours: watched_step(reference, window, way),
                theirs: watched_step(candidate, window, nullcontext),
            }

        ways: list[TimedWork] = [
            lambda: of_both(REFERENCE, CANDIDATE),
            timed(LOCKSTEP, lambda: one_step(compared)),
            lambda: of_both(RECORD, BESIDE, lambda: recording(run, next(traces))),
            lambda: {AUDIT: audited_step(reference, window), BESIDE: sum(steps_alone(candidate, window, 3))},
            lambda: {LET_GO: let_go_step(reference, window), BESIDE: sum(steps_alone(candidate, window, 2))},
            *(partial(of_both, name, BESIDE, looks[name]) for name in others),
        ]
        return in_turn(ways, rounds, tick)


def added_memory(lane: LockstepRun, window: Window[Batch]) -> dict[str, int]:
    """Return the bytes that watching a step adds to the most memory that the step holds at once, by way."""

    def most(way: WatchStep) -> int:
        lane.run.optimizer.zero_grad()  # a profile counts no release of what was allocated before it
        return peak_bytes(lambda: watched_step(lane, window, way))

    watched_step(lane, window, nullcontext)  # the optimizer now has its state
    bare = most(nullcontext)
    with TemporaryDirectory() as folder:
        recorded = most(lambda: recording(lane.run, Path(folder, "trace")))
    return {RECORD: recorded - bare, AUDIT: most(lambda: auditing(lane.run)) - bare}


def hashed_seconds(lane: LockstepRun, window: Window[Batch], rounds: int) -> tuple[list[float], list[float]]:
    """Return the seconds of a step, bare and with DebugMode's hashes."""
    seconds = in_turn(
        [timed("bare", partial(unwatched_step, lane, window)), lambda: {HASHES: watched_step(lane, window, hashing)}],
        rounds,
        lambda: None,
    )
    return seconds["bare"], seconds[HASHES]


def one_step(compared: Iterator[Comparison]) -> None:
    """Advance a lockstep to the end of a step.

    Raises:
        AssertionError: if the lanes differ, as the figures of the difference would be timed as well.
    """
    for found in compared:
        assert not found.mismatches, "the lanes differ"
        if found.place.phase == Phase.STEPPED:
            return


def watched_step(lane: LockstepRun, window: Window[Batch], way: WatchStep) -> float:
    """Return the seconds of one step, watched in one way; the work before and after it is not counted."""
    with way() as look, lane.random.active():

        def work() -> None:
            for moment in lane.step(lane.run, window):
                if look is not None:
                    look(moment)

        return seconds_of(work)


@contextmanager
def recording(run: Run, folder: Path) -> Iterator[None]:
    """Record a trace in ``folder``."""
    with gradparity.record(run.model, run.optimizer, folder, scheduler=run.scheduler):
        yield


@contextmanager
def auditing(run: Run) -> Iterator[None]:
    """Audit what is trained."""
    with gradparity.audit(run.model, run.optimizer):
        yield


def audited_step(lane: LockstepRun, window: Window[Batch]) -> float:
    """Return the seconds of a step in an audit, the mean of its second and third; an audit watches 20 of them."""
    with auditing(lane.run):
        _, second, third = steps_alone(lane, window, 3)
    return (second + third) / 2


def let_go_step(lane: LockstepRun, window: Window[Batch]) -> float:
    """Return the seconds of a step after an audit has seen enough, while its hooks are still there."""
    with gradparity.audit(lane.run.model, lane.run.optimizer, steps=1):
        _, second = steps_alone(lane, window, 2)
    return second


def steps_alone(lane: LockstepRun, window: Window[Batch], steps: int) -> list[float]:
    """Return the seconds of each of some steps."""
    return [watched_step(lane, window, nullcontext) for _ in range(steps)]


@contextmanager
def cloning(run: Run, same: Callable[[Tensor, Tensor], object]) -> Iterator[AtMoment]:
    """Watch as one would by hand: at each phase, clone the tensors that it changes, and compare the clones."""

    def look(moment: Moment) -> None:
        for tensor in written_tensors(run, moment.phase):
            same(tensor.clone(), tensor)

    yield look


def written_tensors(run: Run, phase: Phase) -> Iterator[Tensor]:
    """Yield the tensors that a phase has written; unscaling writes none in fp32."""
    if phase in (Phase.ACCUMULATED, Phase.CLIPPED):
        yield from (p.grad for p in run.parameters if p.grad is not None)
    elif phase == Phase.STEPPED:
        yield from (p.detach() for p in run.parameters)
        yield from (value for state in run.optimizer.state.values() for value in state.values())


def assert_close(a: Tensor, b: Tensor) -> None:
    """Compare as PyTorch's own tests do, without tolerance."""
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def assert_equal(a: Tensor, b: Tensor) -> None:
    """Compare by the fastest one-liner; for it, -0 equals +0, and a NaN differs from itself."""
    assert torch.equal(a, b)


@contextmanager
def hashing() -> Iterator[None]:
    """Hash the inputs and outputs of every operation."""
    with DebugMode(), DebugMode.log_tensor_hashes():
        yield
