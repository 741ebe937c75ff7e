"""All observations of a user's loop, made in a process that the loop may spoil; the verdict is given elsewhere."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gradparity.check.audited import AuditedLoop, audited
from gradparity.check.float64_reference import error_of_first_gradient, first_window
from gradparity.check.global_state import GlobalState
from gradparity.check.graph_leaks import GraphLeaks
from gradparity.check.intended import EVERYTHING, Asked
from gradparity.check.lookup import first_shown
from gradparity.check.loop_end import EndKind
from gradparity.check.observe import ObservedLoop, UserLoop, observe, observe_reference
from gradparity.check.trained_objects import InputGuard, still_running
from gradparity.check.uncheckable import steps_made, why_uncheckable
from gradparity.check.user_loop import LoadedLoop
from gradparity.errors import UserError
from gradparity.faults import stress_scenario
from gradparity.processes.sandbox import TimeLimit
from gradparity.trace.events import Event
from gradparity.trace.file import Writer
from gradparity.trace.record import about


@dataclass(frozen=True)
class Probe:
    """All observations of one loop, from several runs."""

    name: str
    precision: str
    observed: ObservedLoop
    in_fp32: ObservedLoop | None = None
    """The loop in fp32; ``None`` if it did not finish."""
    reference_after: ObservedLoop | None = None
    """The reference, run in the same process right after the loop; ``None`` if it could not even begin."""
    instead: str = ""
    """A predicate on what the loop trains instead of what it was given; empty if it trains that."""
    uncheckable: str = ""
    """A predicate: the reason why the loop cannot be checked for more than one fault; empty if it can."""
    graphs: GraphLeaks = field(default_factory=GraphLeaks)
    """The graphs that it was observed to keep."""
    oracle: float | None = None
    """The relative error of its first gradient, by :mod:`gradparity.check.float64_reference`."""
    left: Sequence[str] = ()
    """Process-wide settings that it changed and did not restore."""
    hooks: Sequence[str] = ()
    """Modules, parameters and optimizers on which it left hooks."""
    asked: Asked = EVERYTHING
    """Everything that it asks for, by which it says what it means."""
    own_models: Mapping[str, str] = field(default_factory=dict)
    """The class of each model in a variable of the loop, other than the given one, by name: they are not compared."""
    audit: AuditedLoop = AuditedLoop()  # noqa: RUF009  # it is frozen
    """Everything that an audit has seen of it; nothing if it did not finish."""
    found_precision: bool = False
    """True if the precision was chosen by what the loop takes and reads."""


def probe_loop(
    load: Callable[[], LoadedLoop], name: str, asked_precision: str | None, folder: Path, limit: TimeLimit
) -> Probe:
    """Run a loop under the stress scenario, as often as needed, and return all observations.

    Args:
        load: imports the loop.
        name: the name of the loop in messages.
        asked_precision: a key of :data:`gradparity.training.PRECISIONS`; ``None`` for the one that the loop is made
            for: fp16 if it takes the scaler, else bf16 if it reads ``plan.autocast``, else fp32.
        folder: for a trace with all tensors.
        limit: limits the time of each run of the loop.

    Raises:
        UserError: if the loop cannot be loaded, does not repeat itself, or leaves something running.
    """
    torch.set_num_threads(1)  # observe sets this too; without it here, the loop would seem to have changed it
    before = GlobalState.now()
    threads = set(threading.enumerate())
    with limit.on(f"the import of {name.partition(':')[0]}"):
        loop = load()
    before.restore()

    def limited(**arguments: Any) -> None:
        with limit.on(name):
            loop(**arguments)

    precision = asked_precision or _made_for(loop, limited)
    before.restore()
    guard, writer = InputGuard(), Writer(folder, about(), full=True)
    try:
        with guard.watching_others():
            observed = observe(limited, guard.build, precision, writer=writer)
    finally:
        writer.close()
    if running := still_running(threads):
        raise UserError(f"{name} leaves {running} running when it returns; wait for it in the loop, or stop it")
    left = before.changed()
    try:
        reference_after = observe_reference([], precision)
    except Exception:  # such as a default device that holds no tensors, or a function replaced by a non-function
        reference_after = None
    before.restore()
    graphs = GraphLeaks()
    if observed.end.kind != EndKind.ENDLESS:
        again = observe(limited, graphs.build, precision, graphs.count)
        before.restore()
        if again != observed:
            raise UserError(
                f"{name} does not repeat itself: a second run differs at {first_shown(observed, again) or 'its end'}; "
                "keep no state between calls, and draw random numbers only from torch"
            )
    in_fp32 = oracle = None
    audit = AuditedLoop()
    if observed.end.finished:
        in_fp32 = observe(limited, stress_scenario.build, "fp32")
        before.restore()
        audit = audited(limited, precision)
        before.restore()
        if "max_norm" in guard.read:  # else it may clip to a threshold of its own, which this cannot lift
            number = None if "accumulation_steps" in guard.read else audit.backwards
            oracle = error_of_first_gradient(limited, window=partial(first_window, number=number))
    # A schedule that it advances belongs to the optimizer that it was given: with another one, that is a mistake.
    scheduled = any(record.event == Event.SCHEDULE for record in observed.trace.records)
    on_what_it_was_given = scheduled or bool(steps_made(observed))
    other = "" if steps_made(observed) else guard.other_optimizer()
    instead = other or guard.untrained_parameter()
    return Probe(
        name,
        precision,
        observed,
        in_fp32,
        reference_after,
        instead,
        why_uncheckable(observed, instead),
        graphs,
        oracle,
        left,
        guard.hooks_left(),
        Asked(loop.takes, frozenset(guard.read), () if on_what_it_was_given else guard.own_optimizers()),
        guard.own_models,
        audit,
        asked_precision is None,
    )


def _made_for(loop: LoadedLoop, limited: UserLoop) -> str:
    """Return the precision that a loop is made for."""
    if "scaler" in loop.takes:
        return "fp16"
    guard = InputGuard()
    observe(limited, guard.build, "bf16")
    return "bf16" if "autocast" in guard.read else "fp32"
