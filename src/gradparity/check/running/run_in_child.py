"""All observations of a user's loop, made in a process that the loop may spoil; the verdict is given elsewhere."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gradparity.check.intended.intended_reference import Asked
from gradparity.check.intended.own_scaler import build_without_scaler
from gradparity.check.intended.own_updates import OwnUpdates
from gradparity.check.intended.own_ways import OwnWays, WeightsWritten, own_loss
from gradparity.check.lookup.fault_lookup import first_shown
from gradparity.check.running.audited import AuditedLoop, audited
from gradparity.check.running.changing_lines import LineWatcher
from gradparity.check.running.float64_reference import error_of_first_gradient, first_window
from gradparity.check.running.global_state import GlobalState
from gradparity.check.running.graph_leaks import GraphLeaks
from gradparity.check.running.loop_end import EndKind
from gradparity.check.running.observe import ObservedLoop, UserLoop, observe, observe_reference
from gradparity.check.running.probe import Probe
from gradparity.check.running.trained_objects import InputGuard, still_running
from gradparity.check.running.uncheckable import steps_made, why_uncheckable
from gradparity.check.running.user_loop import LoadedLoop
from gradparity.check.running.without_compiler import without_compiler
from gradparity.check.updates_and_averages.own_averages import OwnAverages
from gradparity.errors import UserError
from gradparity.faults import stress_scenario
from gradparity.faults.stress_scenario import EMA_DECAY
from gradparity.processes.sandbox import TimeLimit
from gradparity.trace.events import Event
from gradparity.trace.record import about
from gradparity.trace.trace_file import Writer

_COMPUTES: Mapping[torch.dtype | None, str] = {torch.float16: "fp16", torch.bfloat16: "bf16"}
"""The precision of each dtype of autocast."""

_UNSEEN = (
    "updates the weights itself, with gradients that never reach p.grad, so they cannot be seen; write them to p.grad "
    "before the update to have them judged"
)


def probe_loop(
    load: Callable[[], LoadedLoop], name: str, asked_precision: str | None, folder: Path, limit: TimeLimit
) -> Probe:
    """Run a loop under the stress scenario, as often as needed, and return all observations.

    Args:
        load: imports the loop.
        name: the name of the loop in messages.
        asked_precision: a key of :data:`gradparity.training.PRECISIONS`; ``None`` for the one that the loop is made
            for: that of an autocast of its own; else fp16 if it takes the scaler or builds one, bf16 if it reads
            ``plan.autocast``, fp32 if not.
        folder: for a trace with all tensors.
        limit: limits the time of each run of the loop.

    Raises:
        UserError: if the loop cannot be loaded, does not repeat itself, or leaves something running.
    """
    with without_compiler() as compiled:
        probe = _probe_loop(load, name, asked_precision, folder, limit)
    return replace(probe, compiles=bool(compiled))


def _probe_loop(
    load: Callable[[], LoadedLoop], name: str, asked_precision: str | None, folder: Path, limit: TimeLimit
) -> Probe:
    torch.set_num_threads(1)  # observe sets this too; without it here, the loop would seem to have changed it
    before = GlobalState.now()
    threads = set(threading.enumerate())
    with limit.on(f"the import of {name.partition(':')[0]}"):
        loop = load()
    before.restore()

    def limited(**arguments: Any) -> None:
        with limit.on(name):
            loop(**arguments)

    build = stress_scenario.build if "scaler" in loop.takes else build_without_scaler
    precision = asked_precision or _made_for(loop, limited)
    before.restore()
    guard, writer = InputGuard(build), Writer(folder, about(), full=True)
    try:
        began = time.monotonic()
        with guard.watching_others():
            observed = observe(limited, guard.build, precision, writer=writer)
        seconds = time.monotonic() - began
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
    graphs, averages, weights = GraphLeaks(), OwnAverages(given=loop.averages), WeightsWritten()
    if observed.end.kind != EndKind.ENDLESS:
        again = observe(
            limited,
            lambda precision: weights.of(averages.of(graphs.build(precision, build))),
            precision,
            lambda *seen: graphs.count(*seen) and averages.look(*seen) and weights.look(*seen),
        )
        before.restore()
        _require_repetition(name, observed, again)
    in_fp32 = oracle = None
    guard_in_fp32 = InputGuard(build)
    audit, watcher, ways = AuditedLoop(), LineWatcher(), OwnWays()
    if observed.end.finished:
        with guard_in_fp32.watching_others():
            in_fp32 = observe(limited, guard_in_fp32.build, "fp32")
        before.restore()
        unasked = Asked(loop.takes, frozenset()).unasked
        audit = audited(limited, build, precision, unasked, "optimizer" in loop.takes)
        before.restore()
        if observed != reference_after and seconds < limit.seconds / 4:  # watched, it takes longer
            observe(watcher.watching(limited), partial(watcher.build, build), precision, watcher.count)
            before.restore()
            ways = OwnWays(
                own_loss(limited, build, precision), *weights.found(steps_made(observed) > 0 and not guard.others)
            )
            before.restore()
        # Else it may clip to a threshold of its own, which this cannot lift, its first window is another one, or it
        # computes in a precision of its own.
        if "max_norm" in guard.read and not guard.draws.own().orders and guard.own_autocast is None:
            number = None if "accumulation_steps" in guard.read else audit.backwards
            oracle = error_of_first_gradient(limited, window=partial(first_window, number=number))
    asked, unseen = _asked_by(loop, observed, guard, guard_in_fp32)
    other = "" if steps_made(observed) or asked.trains_elsewhere else unseen or guard.other_optimizer()
    instead = other or guard.untrained_parameter()
    return Probe(
        name,
        precision,
        observed,
        in_fp32,
        reference_after,
        instead,
        why_uncheckable(observed, instead, asked.trains_elsewhere),
        graphs,
        oracle,
        left,
        guard.hooks_left(),
        asked,
        guard.own_models,
        audit,
        asked_precision is None,
        watcher.runs,
        also=guard.other_training() if steps_made(observed) or asked.trains_elsewhere else "",
        averages=averages.judged(EMA_DECAY if "ema_decay" in guard.read else None),
        ways=ways,
        never_taken=guard.draws.never_taken(),
    )


def _require_repetition(name: str, first: ObservedLoop, again: ObservedLoop) -> None:
    """Raise if a second run of a loop differs from the first; two that raise may do so in different ways.

    Raises:
        UserError: with the place of the first difference.
    """
    if again != first and not {first.end.kind, again.end.kind} <= {EndKind.RAISED}:
        raise UserError(
            f"{name} does not repeat itself: a second run differs at {first_shown(first, again) or 'its end'}; "
            "keep no state between calls, and draw random numbers only from torch"
        )


def _asked_by(loop: LoadedLoop, observed: ObservedLoop, guard: InputGuard, in_fp32: InputGuard) -> tuple[Asked, str]:
    """Return what a loop asks for, and a predicate on updates of its own that cannot be seen; empty if they can."""
    asked = Asked(
        loop.takes,
        frozenset(guard.read),
        own_scaler=guard.scaler,
        batches=guard.draws.batches_in_a_row(),
        draws=guard.draws.own(),
    )
    # A schedule that it advances belongs to the optimizer that it was given: with another one, that is a mistake.
    scheduled = any(record.event == Event.SCHEDULE for record in observed.trace.records)
    on_what_it_was_given = bool(steps_made(observed) or (scheduled and guard.others))
    if observed.end.finished and not on_what_it_was_given:
        asked = _training_elsewhere(asked, guard, in_fp32)
    if asked.updates.weights and not observed.moves:
        return replace(asked, updates=OwnUpdates()), _UNSEEN
    return asked, ""


def _training_elsewhere(asked: Asked, guard: InputGuard, in_fp32: InputGuard) -> Asked:
    """Return what a loop asks for that trains the given model without the given optimizer."""
    if own := guard.own_optimizers():
        return replace(asked, own=own, own_in_fp32=in_fp32.own_optimizers())
    return replace(asked, updates=guard.own_updates(), updates_in_fp32=in_fp32.own_updates())


def _made_for(loop: LoadedLoop, limited: UserLoop) -> str:
    """Return the precision that a loop is made for."""
    guard = InputGuard()
    given = "scaler" in loop.takes
    with guard.watching_others():
        observe(limited, guard.build, "bf16", lambda *_: not given)  # of a given scaler, the first forward is enough
    if guard.own_autocast in _COMPUTES:
        return _COMPUTES[guard.own_autocast]
    if given or guard.scaler is not None:
        return "fp16"
    return "bf16" if "autocast" in guard.read else "fp32"
