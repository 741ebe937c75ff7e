"""The report of a check for people."""

import math
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from gradparity.auditing.finding import RuleFinding, RuleVerdict
from gradparity.check.fault_lookup import Match
from gradparity.check.float64_reference import RELATIVE_ROUNDING
from gradparity.check.graph_leaks import GraphLeaks
from gradparity.check.intended_reference import Intended, in_words
from gradparity.check.not_judged import left_out, lines_not_judged, not_judged, some
from gradparity.check.observe import ObservedLoop
from gradparity.check.own_scaler import WITHOUT_SCALER
from gradparity.check.result import CheckResult
from gradparity.check.uncheckable import no_finite_gradients, no_gradients, steps_made
from gradparity.faults import Fault
from gradparity.faults.how_to_fix import link, mend
from gradparity.parity.likely_cause import listed
from gradparity.trace.events import Event

LIMITS = """\
A check does not cover: your own model, data, loss and hyperparameters, because the loop gets others; GPUs, or without
--nproc several ranks; memory, other than graphs kept from step to step; anything that shows only after two short
epochs; and an error that the reference shares. Tests compare the reference with gradients in float64 and with finite
differences."""

NOT_COVERED = "Not covered: your own model and data, GPUs, memory other than kept graphs (gradparity check --help)."
"""One line at the end of a report; the help has the whole list."""

LIMITS_ON_RANKS = """\
A check on several ranks does not cover: your own model, data, loss and hyperparameters, because the loop gets others;
GPUs and backends other than gloo; ranks with different numbers of microbatches; parameters that a step does not use,
which a check on one rank covers; memory, other than graphs kept from step to step; anything that shows only after two
short epochs; and an error that the reference shares."""

NOT_COVERED_ON_RANKS = (
    "Not covered: your own model and data, GPUs, unequal numbers of microbatches (gradparity check --help)."
)

_PRECISION_REASON = {
    ("bf16", True): "reads plan.autocast and takes no scaler",
    ("bf16", False): "computes under an autocast of its own",
    ("fp32", False): "takes no scaler and never reads plan.autocast",
}
"""By the precision, and whether ``plan.autocast`` is read."""

_LEAVE_OUT = "its loss may depend on them; leave that part out to have the rest judged"

_NUMBERS = ("no", "one", "two", "three", "four")

_COLOURS = {"+": "green", "-": "red"}


def headline(result: CheckResult) -> str:
    """Return the verdict in a sentence."""
    finding, probe, name = result.finding, result.probe, result.probe.name
    reference = f"the reference{in_words(result.meant)}"
    faults = listed([fault.name for fault in finding.faults]) if finding.faults else ""
    if result.same_updates and not result.passed:
        problem = _kept(probe.graphs) if probe.graphs.steps_kept else probe.wrong_average or _left_behind(probe.left)
        return f"The same updates, but {name} {problem}."
    if result.own_way and not probe.uncheckable:
        return f"{name} cannot be judged: it {result.own_way}; leave that out to have the rest judged."
    match finding.match:
        case Match.IDENTICAL:
            return f"Identical: {name} behaves like {reference}, bit for bit, {_steps(probe.observed)}."
        case Match.SAME_UPDATES:
            return f"The same updates: {name} computes something differently in between, but ends in the same bits."
        case Match.ROUNDING if result.same_updates:
            return f"Not a bug, but not the same bits: {name} differs from {reference} only by rounding."
        case Match.ROUNDING:
            return f"{name} behaves, except for rounding, like {reference} with one fault: {faults}."
        case Match.FAULT | Match.PAIR if result.same_updates:
            return f"Not a bug, but not the same bits: {name} behaves like {reference} with {faults}."
        case Match.FAULT:
            first, *same = (fault.name for fault in finding.faults)
            also = f" (or {', or '.join(same)}, which does the same here)" if same else ""
            return f"{name} behaves, bit for bit, like {reference} with one fault: {first}{also}."
        case Match.PAIR:
            number = _NUMBERS[len(finding.faults)]
            return f"{name} behaves, bit for bit, like {reference} with {number} faults: {faults}."
        case Match.CLOSEST:
            return f"{name} has a fault that is not in the dictionary{_audit_names_it(result)}."
    if probe.also and not probe.uncheckable:
        return f"{name} cannot be judged: it {probe.also}, and {_LEAVE_OUT}."
    problem = probe.uncheckable or no_gradients(probe.observed) or no_finite_gradients(probe.observed)
    return f"{name} {problem or 'has a fault that is not in the dictionary' + _audit_names_it(result)}."


def _audit_names_it(result: CheckResult) -> str:
    return "; an audit of the loop found what follows" if any(_audited(result)) else ""


def _audited(result: CheckResult) -> Iterator[str]:
    """Yield what an audit found wrong, with the line; of a loop that passes, only what breaks a promise."""
    if result.passed and _findings(result):
        yield "An audit of the loop's own run found what is wrong in it, and in the reference that does the same:"
    for finding in _findings(result):
        where = f"\n    {finding.line}: {finding.line.source}" if finding.line and finding.line.number else ""
        yield f"{finding.rule.code} {finding.rule.name}: {finding.sentence}{where}"


def _findings(result: CheckResult) -> list[RuleFinding]:
    findings = () if result.probe.uncheckable else result.probe.audit.findings
    return [f for f in findings if f.verdict == RuleVerdict.WRONG or not result.passed]


def _written_in(result: CheckResult) -> Iterator[str]:
    """Yield the lines that wrote what differs first; nothing if an audit has named all of them already."""
    yield from lines_not_judged(result)
    named = {(f.line.file, f.line.number) for f in _findings(result) if f.line}
    if not result.passed and any((line.file, line.number) not in named for line in result.lines):
        only = "This line" if len(result.lines) == 1 else "One of these lines"
        yield f"{only} in your file wrote what differs first:"
        yield from (f"    {line}: {line.source}" for line in result.lines)


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


def _kept(graphs: GraphLeaks) -> str:
    """Return a predicate on the graphs that the loop keeps."""
    return f"keeps the graphs of {graphs.steps_kept} steps alive: {graphs.nodes_per_step:,} more nodes with each step"


def _left_behind(left: Sequence[str]) -> str:
    """Return a predicate on what the loop leaves changed for the next training in its process."""
    changes = listed(left) if left else "something changed in the process"
    return f"leaves {changes}, and the reference then computes different updates; restore it before returning"


def _steps(loop: ObservedLoop) -> str:
    """Return the number of steps that a loop was observed to make, in words."""
    if not steps_made(loop):  # it steps an optimizer of its own, which the trace does not show
        return f"in {sum(record.event == Event.FORWARD for record in loop.trace.records)} microbatches"
    skipped = sum(record.event == Event.SKIP for record in loop.trace.records)
    return f"in {steps_made(loop)} steps" + (f", {skipped} of them skipped" if skipped else "")


def remarks(result: CheckResult) -> list[str]:
    """Return further sentences about the loop, the most important first."""
    finding, probe, loop = result.finding, result.probe, result.probe.observed
    lines = []
    if result.meant:
        lines.append(_why_meant(result.meant))
    if any(one.change is WITHOUT_SCALER for one in result.meant):
        lines.append("In fp16 without a loss scale, gradients below 6e-8 become zero; take the scaler to keep them.")
    if probe.found_precision and probe.precision != "fp16":
        reason = _PRECISION_REASON[probe.precision, "autocast" in probe.asked.read]
        lines.append(f"Checked in {probe.precision} only: the loop {reason}.")
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
    lines.extend(left_out(result))
    if result.explanation:
        lines.append(result.explanation)
    if probe.graphs.steps_kept:
        fix = "Memory grows, because a loss or output is kept with its graph; keep its .item() or .detach() instead."
        lines.append(fix if result.same_updates else f"It also {_kept(probe.graphs)}. {fix}")
    if result.reference_changed and (probe.graphs.steps_kept or not result.same_updates):
        lines.append(f"It also {_left_behind(probe.left)}.")
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
    lines.extend(not_judged(result))
    if finding.match == Match.CLOSEST and not result.own_way:
        where = f"until {finding.parted.place}" if finding.parted else "until the end"
        faults = listed([fault.name for fault in finding.faults])
        lines.append(f"It behaves like the reference with {faults} {where}, and differently from there on.")
    if probe.oracle is not None:
        right = "right" if probe.oracle < RELATIVE_ROUNDING else "wrong"
        error = f"relative error {probe.oracle:.1g}" if math.isfinite(probe.oracle) else "not finite"
        lines.append(
            f"Compared with the whole window in float64, its first gradient, before any clip, is {right}: {error}."
        )
    return lines


def show(result: CheckResult, console: Console) -> None:
    """Print the report: the verdict, what to change, the evidence, and one line on what was not checked."""
    console.print(headline(result), style="bold green" if result.passed else "bold red", soft_wrap=True)
    for line in _audited(result):
        console.print(line, soft_wrap=True, markup=False)
    for line in _written_in(result):
        console.print(line, soft_wrap=True, markup=False)
    answers = () if result.finding.match == Match.CLOSEST else result.finding.faults
    for fault in answers:
        _show(fault, console)
    if answers:
        console.print()
    for line in remarks(result):
        console.print(line, soft_wrap=True, markup=False)
    console.print()
    console.print(NOT_COVERED_ON_RANKS if result.ranks else NOT_COVERED, style="dim", soft_wrap=True)


def _show(fault: Fault, console: Console) -> None:
    console.print()
    console.print(Text.assemble((fault.name, "bold"), f"  {fault.symptom}"), soft_wrap=True)
    console.print(f"Needed for it to show: {fault.needs}.", style="dim", soft_wrap=True)
    for where, patch in fault.changes.items():
        console.print(f"  in the reference's {where.__name__}, wrong (-) → right (+):")
        for line in mend(patch):
            console.print(Text(f"    {line}", _COLOURS.get(line[:1], "")), soft_wrap=True)
    for source in fault.sources:
        console.print(f"  {link(source)}", soft_wrap=True)
