"""A user's loop run under the stress scenario, compared with the reference, and looked up among the known faults."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from gradparity.auditing.watching.user_lines import Line
from gradparity.check.intended.closest_reference import ClosestReference, closest_reference, identical
from gradparity.check.intended.intended_reference import EVERYTHING, Intended, Said, intended
from gradparity.check.intended.own_gradients import follow_gradients
from gradparity.check.lookup.fault_lookup import Finding, Match, look_up
from gradparity.check.lookup.kept_runs import KeptRuns
from gradparity.check.lookup.rounding import match_with_rounding, overflows_apart
from gradparity.check.presentation.progress import progress_bar
from gradparity.check.presentation.result import CheckResult
from gradparity.check.running.changing_lines import changing_lines, writing_weights
from gradparity.check.running.observe import ObservedLoop, common_prefix, observe, observe_reference
from gradparity.check.running.probe import Probe
from gradparity.check.running.run_in_child import probe_loop
from gradparity.check.running.uncheckable import steps_made
from gradparity.check.running.user_loop import LoadedLoop
from gradparity.check.updates_and_averages.judged_updates import judged_updates
from gradparity.errors import UserError
from gradparity.faults.patching import reference_with
from gradparity.faults.stress_scenario import MAX_NORM
from gradparity.parity.explain_difference import explain
from gradparity.parity.state import Part
from gradparity.processes.sandbox import PATIENCE, run_in_subprocess
from gradparity.trace.diff import first_difference
from gradparity.trace.events import Event
from gradparity.trace.events_compared import first_other_draw
from gradparity.trace.record import about
from gradparity.trace.trace_file import Writer, read

_TORCH_RAISES = ("RuntimeError", "AssertionError", "CheckpointError")
"""Types of the exceptions with which torch stops a loop that has a fault."""


def check(
    load: Callable[[], LoadedLoop],
    name: str,
    precision: str | None = None,
    patience: float = PATIENCE,
    said: Said = Said(),  # noqa: B008  # it is frozen
    quiet: bool = False,
    kept: KeptRuns | None = None,
) -> CheckResult:
    """Run a loop under the stress scenario, in a separate process, and look it up among the known faults.

    Args:
        load: returns the loop; called in that process.
        name: the name of the loop in the report.
        precision: a key of :data:`gradparity.training.PRECISIONS`; ``None`` for the one that the loop is made for.
        patience: seconds that each run of the loop may take.
        said: what its user says that it means.
        quiet: show no progress.
        kept: runs of the dictionary from earlier checks; by default none.

    Raises:
        UserError: if no verdict can be given.
    """
    with TemporaryDirectory() as folder:
        ours, theirs = Path(folder, "reference"), Path(folder, "loop")
        # The loop runs first, in a fork. This process must not have computed gradients yet; the reference does.
        probe = run_in_subprocess(partial(probe_loop, load, name, precision, theirs), patience)
        reference = _plain_reference(probe)
        plain = closest_reference(
            probe.observed, reference, _options(probe, said), probe.precision, probe.asked.unasked
        )
        finding, closest = _judged(probe, plain, said, theirs, quiet, kept or KeptRuns(use=False))
        explanation = _explain(ours, theirs, probe.precision, closest) if _is_to_explain(probe, finding) else ""
        updates = judged_updates(probe.observed, probe.asked.updates, theirs, _thresholds(probe))
    written = not finding.matched or finding.faults or closest is not plain
    elsewhere = probe.asked.trains_elsewhere and not finding.matched
    return CheckResult(
        probe,
        finding,
        explanation + _on_other_draws(probe, finding, closest),
        reference_changed=probe.reference_after != reference,
        lines=_lines(probe, plain, finding) if written else (),
        meant=closest.meant,
        other_forwards=elsewhere and _forwards(probe.observed) != _forwards(closest.run),
        updates=updates,
    )


def _plain_reference(probe: Probe) -> ObservedLoop:
    """Run the reference without any change.

    Raises:
        UserError: if it does not repeat itself, so that no loop could be judged.
    """
    reference = observe_reference([], probe.precision)
    # The loop may have spoiled the process in which the probe ran the reference, so a difference is confirmed here.
    if probe.reference_after != reference and observe_reference([], probe.precision) != reference:
        raise UserError("the reference does not repeat itself on this machine, so no loop can be checked here")
    return reference


def _options(probe: Probe, said: Said) -> list[tuple[Intended, ...]]:
    """Return the sets of changes to the reference that the loop may mean."""
    # A loop that did not finish had no chance to read what comes later.
    asked = probe.asked if probe.observed.end.finished else EVERYTHING
    in_fp32 = probe.in_fp32 or probe.observed
    return intended(asked, probe.observed, in_fp32, probe.audit, said, probe.precision)


def _is_to_explain(probe: Probe, finding: Finding) -> bool:
    """Return whether the first divergence from the reference says something about the loop."""
    own_steps = finding.match == Match.SAME_UPDATES and not steps_made(probe.observed)
    return finding.match != Match.IDENTICAL and finding.first is not None and not own_steps and probe.trains


def _on_other_draws(probe: Probe, finding: Finding, closest: ClosestReference) -> str:
    """Return a sentence on random numbers that an unexplained loop draws and the reference does not; else empty."""
    step = first_other_draw(closest.run.trace, probe.observed.trace)
    if step is None or finding.matched or probe.uncheckable:
        return ""
    return (
        f"\nFrom step {step} on it draws different random numbers, as with a DataLoader or a seed; this alone "
        "gives different dropout masks. Draw none in the loop, to see if anything else differs."
    )


def _forwards(run: ObservedLoop) -> int:
    return sum(record.event == Event.FORWARD for record in run.trace.records)


def _thresholds(probe: Probe) -> list[float]:
    """Return the norms to which a loop may clip that makes its updates itself."""
    asked = [MAX_NORM] if "max_norm" in probe.asked.read else []
    return list(dict.fromkeys([*asked, *([] if probe.audit.threshold is None else [probe.audit.threshold])]))


def _lines(probe: Probe, closest: ClosestReference, finding: Finding) -> Sequence[Line]:
    """Return the lines of the loop that wrote what differs first from its reference."""
    if probe.ways.weights and probe.ways.why_unlike(finding) == probe.ways.weights:
        return writing_weights(probe.lines)
    loop, reference = probe.observed.observations, closest.run.observations
    return changing_lines(probe.lines, loop, reference, common_prefix(loop, reference))


def _judged(
    probe: Probe, closest: ClosestReference, said: Said, trace: Path, quiet: bool, kept: KeptRuns
) -> tuple[Finding, ClosestReference]:
    """Return the result of the lookup, and the reference that it is about.

    A loop that changes its gradients itself, and has no known fault, is compared with a reference that follows it.
    """
    unasked, loop = probe.asked.unasked, probe.observed
    own = follow_gradients(probe, closest, said, trace)
    finding = _look_up(probe, closest, unasked, quiet, kept, alone=own is not None)
    if own is not None and not finding.matched:
        return Finding(Match.IDENTICAL if identical(loop, own.run, unasked) else Match.SAME_UPDATES), own
    if finding.match == Match.CLOSEST and not loop.end.finished:  # no fault that is known ends it so
        return replace(finding, match=Match.UNKNOWN, faults=(), diverges_at=None, first=None), closest
    return finding, closest


def _look_up(
    probe: Probe,
    closest: ClosestReference,
    unasked: frozenset[Part],
    quiet: bool,
    kept: KeptRuns,
    alone: bool = False,
) -> Finding:
    """Return the faults with which the reference behaves as the loop does; look for one fault only if ``alone``."""
    loop, precision = probe.observed, probe.precision
    stopped_by_torch = loop.end.exception in _TORCH_RAISES
    with progress_bar(shown=not quiet) as progress:
        finding = look_up(
            loop,
            closest.run,
            lambda faults, expected: observe_reference([*closest.changes, *faults], precision, expected),
            progress,
            alone=bool(alone or probe.instead or probe.also or (probe.uncheckable and not stopped_by_torch)),
            unasked=unasked,
            memory=None if loop == closest.run else kept.of(closest.run, closest.changes, precision),
            processes=None,
        )
        kept.keep()
        if finding.matched or not probe.in_fp32 or probe.uncheckable or alone:
            return finding
        meant = closest.changes, unasked, closest.changes_in_fp32
        first = finding.first.place if finding.first is not None else None
        faults = match_with_rounding(loop, probe.in_fp32, precision, *meant, kept.norms_of, progress, first)
        kept.keep()
    if faults is not None:
        return finding.except_for_rounding(faults)
    overflow = overflows_apart(loop, closest.run, probe.in_fp32, precision, closest.changes_in_fp32, unasked)
    return finding if overflow is None else replace(finding.except_for_rounding(()), overflow=overflow)


def _explain(ours: Path, theirs: Path, precision: str, closest: ClosestReference) -> str:
    """Explain the first divergence from the reference, with the tensors of both traces.

    The trace of the loop is in ``theirs``. The reference is run here, and its trace goes to ``ours``.
    """
    names, writer = reference_with(closest.changes), Writer(ours, about(), full=True)
    try:
        observe(names["reference"], names["build"], precision, writer=writer)
    finally:
        writer.close()
    found = first_difference(read(ours), read(theirs))
    return explain(found) if found is not None else ""
