"""Reports of a lookup: text for people, JSON for programs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.text import Text

from gradparity.check.graph_leaks import Graphs
from gradparity.check.lookup import Answer, Finding
from gradparity.check.observe import Observed
from gradparity.check.oracle import ROUNDING
from gradparity.check.uncheckable import no_gradients, no_numbers, stepped
from gradparity.check.user_loop import listed
from gradparity.faults import Fault, Kind
from gradparity.faults.how_to_fix import link, mend
from gradparity.trace.events import Event
from gradparity.trace.ranks import RankDifferences

BLIND = """\
What a check cannot see: your own model, data, loss and hyperparameters (the loop is given others); GPUs, and without
--nproc several ranks; memory other than graphs that are kept from step to step; whatever shows only after more than two
short epochs; and an error that the reference shares, which tests hold against gradients in float64 and finite
differences."""

BLIND_ON_RANKS = """\
What a check on several ranks cannot see: your own model, data, loss and hyperparameters (the loop is given others);
other backends than gloo, and GPUs; ranks with other numbers of microbatches; what becomes of parameters that a step
does not use, which a check on one rank shows; memory other than graphs that are kept from step to step; whatever shows
only after more than two short epochs; and an error that the reference shares."""

NUMBERS = ("no", "one", "two", "three", "four")

COLOURS = {"+": "green", "-": "red"}


@dataclass(frozen=True)
class Checked:
    """A loop that has been looked up."""

    name: str
    precision: str
    seen: Observed
    finding: Finding
    explanation: str
    """Describes the first divergence; empty if there is none."""
    graphs: Graphs = field(default_factory=Graphs)
    """The graphs that it was observed to keep."""
    oracle: float | None = None
    """The relative error of its first gradient, by :mod:`gradparity.check.oracle`."""
    plight: str = ""
    """A predicate: why the loop cannot be checked; empty if it can."""
    left: Sequence[str] = ()
    """Process-wide settings that it changed and did not restore."""
    spoilt: bool = False
    """True if the reference behaves differently in the process that the loop leaves."""
    hooks: Sequence[str] = ()
    """Modules, parameters and optimizers on which it left hooks."""
    ranks: RankDifferences | None = None
    """For a loop on several ranks: the difference of each rank from the reference."""

    @property
    def passed(self) -> bool:
        """Return whether the loop passes.

        It passes if it makes the updates of the reference, except for rounding, keeps no graphs, and leaves the process
        in a state in which the reference behaves the same.
        """
        return self.same_updates and not self.graphs.kept and not self.spoilt

    @property
    def code(self) -> int:
        """Return the exit code of the command."""
        unchecked = self.finding.answer == Answer.UNKNOWN and (self.seen.error is not None or not stepped(self.seen))
        return 0 if self.passed else 2 if unchecked else 1

    @property
    def same_updates(self) -> bool:
        """Return whether the loop makes the updates of the reference, except for rounding."""
        finding = self.finding
        if finding.answer in (Answer.FAULT, Answer.PAIR):
            return all(fault.kind == Kind.ROUNDING for fault in finding.faults)
        if finding.answer == Answer.ROUNDING:
            return not finding.faults
        return finding.answer in (Answer.IDENTICAL, Answer.SAME_UPDATES)


def headline(checked: Checked) -> str:
    """Return the verdict in a sentence."""
    finding, names = checked.finding, listed([fault.name for fault in checked.finding.faults])
    if checked.same_updates and not checked.passed:
        kept = checked.graphs.kept
        return f"The same updates, but {checked.name} {keeps(checked.graphs) if kept else spoils(checked.left)}."
    match finding.answer:
        case Answer.IDENTICAL:
            return f"Identical: {checked.name} behaves like the reference, bit for bit, {counted(checked.seen)}."
        case Answer.SAME_UPDATES:
            return f"The same updates: {checked.name} goes another way in between, and arrives at the same bits."
        case Answer.ROUNDING if checked.same_updates:
            return f"Not a bug, but not the same bits: {checked.name} behaves like the reference but for rounding."
        case Answer.ROUNDING:
            return f"{checked.name} behaves, but for rounding, like the reference with one fault: {names}."
        case Answer.FAULT if checked.same_updates:
            return f"Not a bug, but not the same bits: {checked.name} behaves like the reference with {names}."
        case Answer.FAULT:
            name, *same = (fault.name for fault in finding.faults)
            also = f" (or {', or '.join(same)}, which is the same here)" if same else ""
            return f"{checked.name} behaves, bit for bit, like the reference with one fault: {name}{also}."
        case Answer.PAIR if checked.same_updates:
            return f"Not a bug, but not the same bits: {checked.name} behaves like the reference with {names}."
        case Answer.PAIR:
            number = NUMBERS[len(finding.faults)]
            return f"{checked.name} behaves, bit for bit, like the reference with {number} faults: {names}."
        case Answer.CLOSEST:
            return f"{checked.name} has a fault that is not in the dictionary. For a while it behaves like {names}."
        case _ if plight := checked.plight or no_gradients(checked.seen) or no_numbers(checked.seen):
            return f"{checked.name} {plight}."
        case _:
            return f"{checked.name} has a fault that is not in the dictionary."


def keeps(graphs: Graphs) -> str:
    """Return a predicate that says which graphs the loop keeps."""
    return f"keeps the graphs of {graphs.kept} steps alive: {graphs.growth:,} nodes more with each step"


def spoils(left: Sequence[str]) -> str:
    """Return a predicate that says what the loop leaves changed for the next training in its process."""
    what = listed(left) if left else "something"
    return f"leaves {what}, and after that the reference itself makes others; put it back at the end"


def counted(seen: Observed) -> str:
    """Return the number of steps that a loop was observed to make, in words."""
    made, skipped = (sum(r.event == event for r in seen.trace.records) for event in (Event.STEP, Event.SKIP))
    skips = f", {skipped} of them skipped" if skipped else ""
    return f"in {made + skipped} steps{skips}"


def remarks(checked: Checked) -> list[str]:
    """Return further sentences about the loop, the most important first."""
    seen, finding = checked.seen, checked.finding
    lines = []
    if seen.error is not None and finding.answer != Answer.UNKNOWN:
        lines.append(f"It did not come to its end: {seen.error.rstrip('.')}.")
    scaled = any(r.event == Event.UPDATE for r in seen.trace.records)
    if checked.precision == "fp16" and stepped(seen) and not scaled and not checked.passed:
        lines.append("It never updates the scaler; a loop without mixed precision is checked by --precision fp32.")
    if checked.explanation:
        lines.append(checked.explanation)
    if checked.graphs.kept:
        told = "Memory grows: a loss or output is kept with its graph; keep .item() or .detach() of it instead."
        lines.append(told if checked.same_updates else f"It also {keeps(checked.graphs)}. {told}")
    if checked.spoilt and (checked.graphs.kept or not checked.same_updates):
        lines.append(f"It also {spoils(checked.left)}.")
    elif checked.left and not checked.spoilt:
        lines.append(f"It leaves {listed(checked.left)}, which makes no difference here.")
    if checked.hooks:
        where = listed(checked.hooks)
        lines.append(f"It leaves hooks on {where}; remove them at the end, or each call adds its own.")
    if finding.answer == Answer.CLOSEST:
        where = f"at {finding.parted.place}" if finding.parted else "at the end"
        names = listed([fault.name for fault in finding.faults])
        lines.append(f"It parts from {names} {where}; what it has more, or in another form, is not known.")
    if checked.oracle is not None:
        right = "right" if checked.oracle < ROUNDING else "wrong"
        error = f"relative error {checked.oracle:.1g}"
        lines.append(f"By an oracle in float64, over the whole window, its first gradient is {right}: {error}.")
    if finding.also_here and seen.error is None and stepped(seen):
        lines.append(f"Of the faults in the dictionary {len(finding.also_here)} first show there, in other ways.")
    return lines


def show(checked: Checked, console: Console) -> None:
    """Print the report."""
    console.print(headline(checked), style="bold green" if checked.passed else "bold red", soft_wrap=True)
    for line in remarks(checked):
        console.print(line, soft_wrap=True, markup=False)
    for fault in checked.finding.faults:
        _show(fault, console)
    console.print(BLIND_ON_RANKS if checked.ranks else BLIND, style="dim", soft_wrap=True)


def _show(fault: Fault, console: Console) -> None:
    console.print()
    console.print(Text.assemble((fault.name, "bold"), f"  {fault.symptom}"), soft_wrap=True)
    console.print(f"To show, it needs {fault.needs}.", style="dim", soft_wrap=True)
    for where, patch in fault.changes.items():
        console.print(f"  in {where.__name__}, wrong (-) → right (+):")
        for line in mend(patch):
            console.print(Text(f"    {line}", COLOURS.get(line[:1], "")), soft_wrap=True)
    for source in fault.sources:
        console.print(f"  {link(source)}", soft_wrap=True)


def of_ranks(found: RankDifferences) -> dict[str, object]:
    """Return which ranks diverge first, and at which step ranks are no longer one model."""
    apart = {"step": found.apart[0], "ranks": found.apart[1]} if found.apart else None
    return {"number": len(found.ranks), "diverging": found.diverging, "apart": apart}


def as_json(checked: Checked) -> dict[str, object]:
    """Return the whole report, for programs."""
    finding = checked.finding
    return {
        "loop": checked.name,
        "precision": checked.precision,
        "passed": checked.passed,
        "answer": finding.answer,
        "headline": headline(checked),
        "error": checked.seen.error,
        "where": checked.seen.where or None,
        "oracle": checked.oracle if checked.oracle is None or math.isfinite(checked.oracle) else None,
        "graphs_kept": checked.graphs.kept,
        "left": [*checked.left],
        "spoilt": checked.spoilt,
        "hooks_left": [*checked.hooks],
        "ranks": of_ranks(checked.ranks) if checked.ranks else None,
        "first": str(finding.first.place) if finding.first else None,
        "explanation": checked.explanation,
        "parted_from_closest": str(finding.parted.place) if finding.parted else None,
        "also_here": [fault.name for fault in finding.also_here],
        "tried": finding.tried,
        "faults": [
            {
                "name": fault.name,
                "kind": fault.kind,
                "symptom": fault.symptom,
                "needs": fault.needs,
                "mend": {where.__name__: mend(patch) for where, patch in fault.changes.items()},
                "sources": [link(source) for source in fault.sources],
            }
            for fault in finding.faults
        ],
    }
