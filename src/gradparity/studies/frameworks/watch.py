"""A framework's loop recorded, and compared with the reference step, which is recorded in the same way."""

import atexit
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from gradparity.parity.random_stream import RandomStream
from gradparity.parity.verdict import Verdict, verdict_of
from gradparity.studies.frameworks.reference import reference_loop
from gradparity.studies.frameworks.scenario import SEED, Job, Scenario, new_job
from gradparity.trace.diff import compare_traces
from gradparity.trace.events import Event, Record, Trace
from gradparity.trace.record import record
from gradparity.trace.trace_file import read

FrameworkLoop = Callable[[Job], None]


@dataclass(frozen=True)
class Framework:
    """A loop, imported only when it runs: some of these packages take seconds to import, or may be missing."""

    package: str
    module: str
    loop: str

    def load(self) -> FrameworkLoop | None:
        """Return the loop, or ``None`` if its package is not installed."""
        if find_spec(self.package) is None:
            return None
        with quiet():
            loop: FrameworkLoop = getattr(import_module(f"gradparity.studies.frameworks.{self.module}"), self.loop)
        return loop


FRAMEWORKS = {
    "Lightning, automatic": Framework("lightning", "lightning", "automatic"),
    "Lightning, manual": Framework("lightning", "lightning", "manual"),
    "Fabric": Framework("lightning", "fabric", "train"),
    "Fabric, word for word": Framework("lightning", "fabric", "as_on_its_page"),
    "Accelerate": Framework("accelerate", "accelerate", "train"),
    "Accelerate, token count": Framework("accelerate", "accelerate", "by_token_count"),
    "transformers": Framework("transformers", "hf_trainer", "train"),
    "Ignite": Framework("ignite", "ignite", "train"),
}


@dataclass(frozen=True)
class FrameworkOutcome:
    """The result of one framework in one scenario."""

    verdict: Verdict | None
    """``None`` if nothing was compared, for the reason that ``refusal`` gives."""
    refusal: str = ""
    steps: tuple[int, int] = (0, 0)
    """The steps made by the reference, and by the framework."""
    trace: Trace | None = field(default=None, repr=False)
    """The trace of the framework."""
    ranks: tuple[int, ...] = ()
    """The ranks that differ first; empty if all of them do, or there is only one."""
    apart: int | None = None
    """The first step after which a rank's parameters differ from those of rank 0, if there is one."""

    @property
    def identical(self) -> bool:
        """Return whether every phase of every step has the same bits."""
        return self.verdict is not None and self.verdict.parity


NOT_INSTALLED = FrameworkOutcome(None, "not installed: pip install 'gradparity[frameworks]'")


class NullTestError(RuntimeError):
    """The reference differs from itself on this machine, so a difference from it would mean nothing."""


def framework_outcome(
    framework: Framework, scenario: Scenario, reference: FrameworkLoop = reference_loop
) -> FrameworkOutcome:
    """Run ``framework``, and compare its trace with that of the reference.

    Raises:
        NullTestError: if two recordings of the reference differ.
    """
    loop = framework.load()
    return NOT_INSTALLED if loop is None else loop_outcome(loop, scenario, reference)


def loop_outcome(
    loop: FrameworkLoop, scenario: Scenario, reference: FrameworkLoop = reference_loop
) -> FrameworkOutcome:
    """Run ``loop``, and compare it as :func:`framework_outcome` does."""
    expected = checked_reference(scenario, reference)
    with tempfile.TemporaryDirectory() as folder:
        try:
            candidate = record_loop(loop, scenario, Path(folder))
        except (ValueError, RuntimeError, NotImplementedError) as error:
            return FrameworkOutcome(None, f"{type(error).__name__}: {' '.join(str(error).split())}")
        return FrameworkOutcome(
            verdict_of(compare_traces(expected, candidate), up_to_first=True),
            "",
            (optimizer_steps(expected), optimizer_steps(candidate)),
            candidate,
        )


def optimizer_steps(trace: Trace) -> int:
    """Return the number of optimizer steps in a trace; skipped ones do not count."""
    return sum(r.event == Event.STEP for r in trace.records)


@cache
def checked_reference(scenario: Scenario, reference: FrameworkLoop = reference_loop) -> Trace:
    """Return the reference's trace, after a null test."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    uninterrupted = replace(scenario, save_after=None)
    once, again = (record_loop(reference, uninterrupted, folder / name) for name in ("reference", "again"))
    if not (null := verdict_of(compare_traces(once, again), up_to_first=True)).parity:
        raise NullTestError(f"The reference differs from itself: {null.explanation}")
    return once


def record_loop(loop: FrameworkLoop, scenario: Scenario, folder: Path) -> Trace:
    """Return the trace of ``loop``; both halves of a resumed training are joined, as if it had not stopped."""
    half = scenario.save_after
    (folder / "checkpoint").mkdir(parents=True)
    first = _recorded(loop, new_job(scenario, folder / "checkpoint", stop_after=half), folder / "trace")
    if half is None:
        return first
    assert optimizer_steps(first) == half, f"asked to stop after {half} steps, the loop made {optimizer_steps(first)}"
    second = _recorded(loop, new_job(scenario, folder / "checkpoint", resume=True), folder / "trace" / "resumed")
    resumed = [_moved(r, half) for r in second.records]
    return replace(first, records=[r for r in first.records if r.event != Event.END] + resumed)


def _moved(r: Record, steps: int) -> Record:
    return replace(r, step=r.step + steps, tensors=r.tensors and f"resumed/{r.tensors}")


def _recorded(loop: FrameworkLoop, job: Job, folder: Path) -> Trace:
    with RandomStream(SEED).active(), quiet(), record(job.model, job.optimizer, folder, full=True) as of_this_rank:
        loop(job)
    return read(of_this_rank)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence a framework: its advice on workers, its list of devices, its warnings about faults that we look for."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning", "accelerate", "transformers", "ignite")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
