"""The report of a check for people."""

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from gradparity.auditing.finding import RuleFinding, RuleVerdict
from gradparity.check.intended.intended_reference import in_words
from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.presentation.not_judged import lines_not_judged
from gradparity.check.presentation.remarks import kept, left_behind, remarks
from gradparity.check.presentation.result import CheckResult
from gradparity.check.running.observe import ObservedLoop
from gradparity.check.running.uncheckable import no_finite_gradients, no_gradients, steps_made
from gradparity.faults import Fault
from gradparity.faults.how_to_fix import fix_of, link
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

_LEAVE_OUT = "its loss may depend on them; leave that part out to have the rest judged"

_OTHER_FORWARDS = (
    "computes other losses than the reference; compute one for each microbatch to have the gradients judged"
)

_NUMBERS = ("no", "one", "two", "three", "four")

_MOST_SOURCES = 3
"""Reports of a fault that are shown; JSON has all of them."""

_COLOURS = {"+": "green", "-": "red"}


def headline(result: CheckResult) -> str:
    """Return the verdict in a sentence."""
    finding, probe, name = result.finding, result.probe, result.probe.name
    reference = f"the reference{in_words(result.meant)}"
    faults = listed([fault.name for fault in finding.faults]) if finding.faults else ""
    if result.same_updates and not result.passed:
        problem = kept(probe.graphs) if probe.graphs.steps_kept else probe.wrong_average or left_behind(probe.left)
        return f"The same updates, but {name} {problem}."
    if result.own_way:
        return f"{name} cannot be judged: it {result.own_way}; leave that out to have the rest judged."
    if result.other_forwards:
        return f"{name} cannot be judged: it trains without the optimizer that it was given, and {_OTHER_FORWARDS}."
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
        yield f"{finding.rule.code} {finding.rule.name}: {finding.sentence}"
        if finding.line.number:
            yield f"    {finding.line}: {finding.line.source}"
        if not result.finding.matched:  # else the fault says it
            yield from (f"    instead: {line}" for line in finding.rule.instead.splitlines())


def _findings(result: CheckResult) -> list[RuleFinding]:
    findings = () if result.probe.uncheckable else result.probe.audit.findings
    return [f for f in findings if f.verdict == RuleVerdict.WRONG or not result.passed]


def _written_in(result: CheckResult) -> Iterator[str]:
    """Yield the lines that wrote what differs first; nothing if an audit has named all of them already."""
    yield from lines_not_judged(result)
    if result.passed or (result.cannot_be_judged and not (result.other_forwards or result.own_way)):
        return
    named = {(f.line.file, f.line.number) for f in _findings(result) if f.line}
    if any((line.file, line.number) not in named for line in result.lines):
        only = "This line" if len(result.lines) == 1 else "One of these lines"
        yield f"{only} in your file wrote what differs first:"
        yield from (f"    {line}: {line.source}" for line in result.lines)


def _steps(loop: ObservedLoop) -> str:
    """Return the number of steps that a loop was observed to make, in words."""
    if not steps_made(loop):  # it steps an optimizer of its own, which the trace does not show
        return f"in {sum(record.event == Event.FORWARD for record in loop.trace.records)} microbatches"
    skipped = sum(record.event == Event.SKIP for record in loop.trace.records)
    return f"in {steps_made(loop)} steps" + (f", {skipped} of them skipped" if skipped else "")


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
    if fault.needs != "nothing":
        console.print(f"Needed for it to show: {fault.needs}.", style="dim", soft_wrap=True)
    for where, patch in fault.changes.items():
        console.print(f"  in the reference's {where.__name__}, wrong (-) → right (+):")
        for line in fix_of(patch):
            console.print(Text(f"    {line}", _COLOURS.get(line[:1], "")), soft_wrap=True)
    for source in fault.sources[:_MOST_SOURCES]:
        console.print(f"  {link(source)}", soft_wrap=True)
