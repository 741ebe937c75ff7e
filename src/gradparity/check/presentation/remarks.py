"""Sentences of a report below the verdict: how the loop differs, what it is compared with, and what else was seen."""

import math
from collections.abc import Iterator, Sequence

from gradparity.check.intended.intended_reference import Intended
from gradparity.check.intended.own_scaler import WITHOUT_SCALER
from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.presentation.not_judged import left_out, not_judged, some
from gradparity.check.presentation.result import CheckResult
from gradparity.check.running.float64_reference import RELATIVE_ROUNDING
from gradparity.check.running.graph_leaks import GraphLeaks
from gradparity.check.running.uncheckable import steps_made
from gradparity.parity.likely_cause import listed
from gradparity.trace.events import Event

_PRECISION_REASON = {
    ("bf16", True): "reads plan.autocast and takes no scaler",
    ("bf16", False): "computes under an autocast of its own",
    ("fp32", False): "takes no scaler and never reads plan.autocast",
}
"""By the precision, and whether ``plan.autocast`` is read."""


def remarks(result: CheckResult) -> list[str]:
    """Return further sentences about the loop, the most important first."""
    finding, probe, loop = result.finding, result.probe, result.probe.observed
    lines = []
    if probe.graphs.steps_kept:
        fix = "Memory grows, because a loss or output is kept with its graph; keep its .item() or .detach() instead."
        lines.append(fix if result.same_updates else f"It also {kept(probe.graphs)}. {fix}")
    if probe.also and result.cannot_be_judged and not probe.audit.findings:
        lines.append("An audit of its steps, which needs no reference, found nothing wrong.")
    if not result.cannot_be_judged or result.other_forwards:
        lines += [*_differences(result), *_comparison(result)]
    if not loop.end.finished and finding.match != Match.UNKNOWN:
        lines.append(f"It did not finish: {str(loop.end).rstrip('.')}.")
    scaled = any(r.event == Event.UPDATE for r in loop.trace.records)
    unscaled = probe.precision == "fp16" and steps_made(loop) and not scaled
    if unscaled and "scaler" in probe.asked.takes and not result.passed:
        lines.append("It never updates the scaler; check a loop without mixed precision with --precision fp32.")
    if finding.overflow is not None:
        step, of_loop = finding.overflow
        who, other = ("the loop", "the reference") if of_loop else ("the reference", "the loop")
        lines.append(
            f"fp32: the same to the end, except for rounding. {probe.precision}: at step {step} the gradients of {who} "
            f"overflow and those of {other} do not, so only {who} skips that step."
        )
    if result.reference_changed and (probe.graphs.steps_kept or not result.same_updates):
        lines.append(f"It also {left_behind(probe.left)}.")
    elif probe.left and not result.reference_changed:
        lines.append(f"It leaves {listed(probe.left)}, which makes no difference here.")
    if probe.hooks:
        lines.append(f"It leaves hooks on {some(probe.hooks)}; remove them before returning, or each call adds more.")
    if probe.asked.updates.weights:
        lines.append(_of_updates(result))
    if probe.compiles:
        lines.append("It ran uncompiled: the rounding and the dropout masks of torch.compile are not judged.")
    if probe.wrong_average and (probe.graphs.steps_kept or not result.same_updates):
        lines.append(f"It also {probe.wrong_average}.")
    return [*lines, *not_judged(result)]


def _differences(result: CheckResult) -> Iterator[str]:
    """Yield the first difference from the reference, and the error of the first gradient."""
    finding, probe = result.finding, result.probe
    yield from left_out(result)
    if result.passed and result.explanation:  # its figures would alarm
        first = result.explanation.strip().splitlines()[0]
        yield f"On the way to the same updates, {first[:1].lower()}{first[1:]}"
    elif result.explanation:
        yield result.explanation
    if finding.match == Match.CLOSEST:
        where = f"until {finding.diverges_at.place}" if finding.diverges_at else "until the end"
        faults = listed([fault.name for fault in finding.faults])
        yield f"It behaves like the reference with {faults} {where}, and differently from there on."
    if probe.oracle is not None:
        right = "right" if probe.oracle < RELATIVE_ROUNDING else "wrong"
        error = f"relative error {probe.oracle:.1g}" if math.isfinite(probe.oracle) else "not finite"
        yield f"The loop's first gradient, before any clip, is {right}, by the whole window in float64: {error}."


def _comparison(result: CheckResult) -> Iterator[str]:
    """Yield what the loop was compared with, and in which precision."""
    probe = result.probe
    if result.meant:
        yield _why_meant(result.meant)
    if any(one.change is WITHOUT_SCALER for one in result.meant):
        yield "In fp16 without a loss scale, gradients below 6e-8 become zero; take the scaler to keep them."
    if probe.found_precision and probe.precision != "fp16":
        reason = _PRECISION_REASON[probe.precision, "autocast" in probe.asked.read]
        yield f"Checked in {probe.precision} only: the loop {reason}."


def _why_meant(meant: Sequence[Intended]) -> str:
    """Return the signs of what the loop means, and how to say that it means something else."""
    unread = [f"plan.{one.unread}" for one in meant if one.unread]
    reasons = list(dict.fromkeys(one.reason for one in meant if one.reason))
    reasons += [f"never reads {listed(unread)}"] if unread else []
    options = list(dict.fromkeys(one.option for one in meant if one.option))
    more = f" If it should do more, say so: {', '.join(options)}." if options else ""
    return f"The reference follows the loop, which {listed(reasons)}.{more}"


def _of_updates(result: CheckResult) -> str:
    """Return what is known of updates that the loop makes itself."""
    judged = "The reference takes its updates over, so that all losses and gradients are judged."
    return f"{judged} {result.updates or 'The updates themselves are not.'}"


def kept(graphs: GraphLeaks) -> str:
    """Return a predicate on the graphs that the loop keeps."""
    return f"keeps the graphs of {graphs.steps_kept} steps alive: {graphs.nodes_per_step:,} more nodes with each step"


def left_behind(left: Sequence[str]) -> str:
    """Return a predicate on what the loop leaves changed for the next training in its process."""
    changes = listed(left) if left else "something changed in the process"
    return f"leaves {changes}, and the reference then computes different updates; restore it before returning"
