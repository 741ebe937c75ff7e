"""The growth of the cost of watching: with the parameters, with the tensors that hold them, with the steps."""

import json
import resource
import sys
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import count, repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from gradparity.parity.lockstep import LockstepRun, lockstep
from gradparity.processes.launch import launch
from gradparity.studies.benchmark.clock import Spread, spread
from gradparity.studies.benchmark.presentation import FEW, Bar, cost_table, panels_with, part_result
from gradparity.studies.benchmark.timed_models import (
    config,
    lanes_and_window,
    many_tensors,
    parameter_count,
    unwatched_step,
    wide_mlp,
)
from gradparity.studies.benchmark.watched_steps import (
    CANDIDATE,
    LOCKSTEP,
    RECORD,
    REFERENCE,
    one_step,
    recording,
    watched_seconds,
)
from gradparity.studies.benchmark.watching_cost import WAY_COLORS
from gradparity.studies.result import Result
from gradparity.studies.tasks import Batch, Task
from gradparity.trace.trace_file import TRACE_FILE
from gradparity.training import Window

WIDTHS = (40, 190, 685, 2210, 7045)
"""Widths of a multilayer perceptron with about 10⁴, 10⁵, ... 10⁸ parameters in eight tensors."""
TENSOR_COUNTS = (10, 100, 1_000, 10_000)
"""Numbers of tensors, of ten elements each."""
STEP_COUNTS = (10, 100, 1_000, 10_000)
_WHY = "Parameters cost the time to read them, tensors a handful of calls each, and steps leave nothing in memory."


@dataclass(frozen=True)
class SizeCost:
    """The cost that watching adds to a step of a model of one size."""

    parameters: int
    tensors: int
    bare: float
    """Milliseconds of an unwatched step."""
    adds: dict[str, Spread]
    """Milliseconds added, by way: by lockstep to a step of both lanes, by recording to a step of one."""
    trace: int
    """Bytes that a recorded step adds to a trace."""


@dataclass(frozen=True)
class StepInterval:
    """Steps of one long training, up to a mark."""

    way: str
    steps: int
    """The number of steps at that mark."""
    milliseconds: float
    """Milliseconds per step, since the previous mark."""
    megabytes: float
    """The most memory that the process has held so far."""


def measure_growth(full: bool, rounds: int, bar: Bar) -> Result:
    """Measure growth with parameters, tensors and steps; the largest of each only with ``full``."""
    rounds, most = min(rounds, FEW), None if full else -1
    widths, counts, marks = WIDTHS[:most], TENSOR_COUNTS[:most], STEP_COUNTS[:most]
    tick = bar("growth", rounds * (len(widths) + len(counts)) + 2)
    by_size = [by_parameters(width, rounds, tick) for width in widths]
    by_number = [by_tensors(number, rounds, tick) for number in counts]
    along: list[StepInterval] = []
    for way in (LOCKSTEP, RECORD):
        along += launch(by_steps, 1, way, marks, seconds=1800)[0]
        tick()
    tables = [
        _size_table("Growth with parameters", by_size),
        _size_table("Growth with tensors of ten elements", by_number),
        _step_table(along),
    ]
    sentence = _sentence(by_size, by_number, along)
    return part_result("growth", sentence, _WHY, tables, _figure(by_size, by_number), [*by_size, *by_number, *along])


def by_parameters(width: int, rounds: int, tick: Callable[[], object]) -> SizeCost:
    """Measure a model of few tensors, trained on one image."""
    return _cost_of_size(wide_mlp(width), rounds, tick)


def by_tensors(tensors: int, rounds: int, tick: Callable[[], object]) -> SizeCost:
    """Measure a model of tensors so small that only their number matters."""
    return _cost_of_size(many_tensors(tensors), rounds, tick)


def _cost_of_size(task: Task, rounds: int, tick: Callable[[], object]) -> SizeCost:
    """Measure the cost that watching adds to a step of ``task``."""
    (lane, candidate), window = lanes_and_window(task, ("backward", "manual"), config(microbatch=1))
    seconds = watched_seconds(lane, candidate, window, rounds, tick, [])
    both = [sum(pair) for pair in zip(seconds[REFERENCE], seconds[CANDIDATE], strict=True)]
    adds = {
        way: spread([1e3 * (watched - alone) for watched, alone in zip(seconds[way], base, strict=True)])
        for way, base in ((LOCKSTEP, both), (RECORD, seconds[REFERENCE]))
    }
    bare = 1e3 * spread(seconds[REFERENCE]).median
    return SizeCost(parameter_count(lane), len(lane.run.parameters), bare, adds, traced_bytes(lane, window))


def traced_bytes(lane: LockstepRun, window: Window[Batch]) -> int:
    """Return the bytes that the second recorded step adds to a trace; the first also writes names and shapes."""
    with TemporaryDirectory() as folder:
        with recording(lane.run, Path(folder) / "trace"):
            for _ in range(3):
                unwatched_step(lane, window)
        lines = (Path(folder) / "trace" / TRACE_FILE).read_text().splitlines()
        return sum(len(fitted_line) + 1 for fitted_line in lines if json.loads(fitted_line).get("step") == 1)


def fitted_line(sizes: Sequence[int], adds: Sequence[float]) -> tuple[float, float]:
    """Return the constant and the slope of the line through ``adds`` over ``sizes``.

    Small figures weigh as much as large ones.

    >>> [round(float(found), 6) for found in fitted_line([1, 10, 100], [5.0, 23.0, 203.0])]
    [3.0, 2.0]
    """
    slope, constant = np.polyfit(sizes, adds, 1, w=1 / np.maximum(adds, 1e-3))
    return float(constant), float(slope)


def by_steps(way: str, marks: Sequence[int]) -> list[StepInterval]:
    """Measure a long training of a tiny model, watched in one ``way``, in a process that does nothing else."""
    (reference, candidate), window = lanes_and_window(many_tensors(10), ("backward", "manual"), config(microbatch=1))
    with TemporaryDirectory() as folder:
        found, before = [], 0
        steps = (
            lockstep_steps(reference, candidate, window)
            if way == LOCKSTEP
            else recorded_steps(reference, window, Path(folder) / "trace")
        )
        began = time.perf_counter()
        for done in count(1):
            next(steps)
            if done in marks:
                now = time.perf_counter()
                found.append(StepInterval(way, done, 1e3 * (now - began) / (done - before), peak_megabytes()))
                before, began = done, time.perf_counter()
            if done >= max(marks):
                steps.close()
                return found
    raise AssertionError


def lockstep_steps(reference: LockstepRun, candidate: LockstepRun, window: Window[Batch]) -> Generator[None]:
    """Make step after step in lockstep, and yield after each."""
    compared = lockstep(reference, candidate, repeat(window))
    next(compared)
    while True:
        one_step(compared)
        yield


def recorded_steps(lane: LockstepRun, window: Window[Batch], folder: Path) -> Generator[None]:
    """Make step after step, recorded in one trace, and yield after each."""
    with recording(lane.run, folder):
        while True:
            unwatched_step(lane, window)
            yield


def peak_megabytes() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def _size_table(title: str, points: Sequence[SizeCost]) -> Table:
    """Tabulate the cost that watching adds to a step, by the size of the model."""
    table = cost_table(
        title, "parameters", "tensors", "a step\nms", "lockstep\nadds, ms", "recording\nadds, ms", "its trace\nbytes"
    )
    for one in points:
        adds = (f"{one.adds[way].median:.2f}" for way in (LOCKSTEP, RECORD))
        table.add_row(f"{one.parameters:,}", f"{one.tensors:,}", f"{one.bare:.2f}", *adds, f"{one.trace:,}")
    return table


def _step_table(found: Sequence[StepInterval]) -> Table:
    """Tabulate time and memory along a training."""
    table = cost_table(
        "Growth with steps, a process each", "way", "steps so far", "ms a step since", "most memory so far, MB"
    )
    for one in found:
        table.add_row(one.way, f"{one.steps:,}", f"{one.milliseconds:.2f}", f"{one.megabytes:.1f}")
    return table


def _sentence(by_parameters: Sequence[SizeCost], by_tensors: Sequence[SizeCost], along: Sequence[StepInterval]) -> str:
    """Return the growth with each way of watching, in one sentence."""
    sentences = []
    for way in (LOCKSTEP, RECORD):
        constant, slope = fitted_line(
            [p.parameters for p in by_parameters], [p.adds[way].median for p in by_parameters]
        )
        _, each = fitted_line([p.tensors for p in by_tensors], [p.adds[way].median for p in by_tensors])
        first, *_, last = (one for one in along if one.way == way)
        sentences.append(
            f"{way} adds {constant:.2f} ms to a step, {slope * 1e6:.1f} ms for each million parameters and "
            f"{each * 1e3:.0f} µs for each tensor; from step {first.steps} to {last.steps:,} its memory grew by "
            f"{last.megabytes - first.megabytes:.1f} MB"
        )
    return f"{'; '.join(sentences)}."


def _figure(by_parameters: Sequence[SizeCost], by_tensors: Sequence[SizeCost]) -> Figure:
    """Draw the time that watching adds, against the size of the model, both on logarithmic scales."""
    made, (left, right) = panels_with("What watching adds to a step, ms", 2)
    for axes, label, points in ((left, "parameters", by_parameters), (right, "tensors", by_tensors)):
        sizes = [getattr(one, label) for one in points]
        for way in (LOCKSTEP, RECORD):
            axes.plot(sizes, [one.adds[way].median for one in points], "o-", color=WAY_COLORS[way], label=way)
        axes.plot(sizes, [one.bare for one in points], "--", color="#999999", label="an unwatched step")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(label)
    left.legend(frameon=False)
    return made
