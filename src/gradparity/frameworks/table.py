"""The outcomes as a table for the terminal and for TensorBoard, as sentences, and for JSON."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from rich import box
from rich.table import Table

from gradparity.frameworks.known import cause
from gradparity.frameworks.watch import NOT_INSTALLED, Outcome
from gradparity.parity.compare import Mismatch
from gradparity.parity.explain import where
from gradparity.parity.lockstep import END

Outcomes: TypeAlias = Mapping[str, Mapping[str, Outcome]]
"""By scenario, then by framework."""


def table(outcomes: Outcomes) -> Table:
    """Scenario × framework."""
    names = [name.replace(", ", ",\n") for name in next(iter(outcomes.values()))]
    grid = Table("", *names, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for scenario, row in outcomes.items():
        grid.add_row(scenario, *(_colored(outcome) for outcome in row.values()))
    return grid


def markdown(outcomes: Outcomes) -> str:
    """The table and its causes, for a TensorBoard text page."""
    lines = [f"| | {' | '.join(next(iter(outcomes.values())))} |"]
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    lines += [
        f"| {scenario} | {' | '.join(' '.join(cell(outcome).split()) for outcome in row.values())} |"
        for scenario, row in outcomes.items()
    ]
    lines += ["", *(f"* **{in_places(places)}.** {text}" for text, places in differences(outcomes).items())]
    return "\n".join(lines)


def cell(outcome: Outcome) -> str:
    """``identical``, or where the first difference is and its size, in a few short lines."""
    if outcome.verdict is None:
        return "not installed" if outcome == NOT_INSTALLED else "refuses"
    if outcome.verdict.first is None:
        return "identical"
    found, mismatch = outcome.verdict.first
    place = "after the end" if found.step == END else f"step {found.step} {found.phase.name.lower()}"
    where_else = f"rank {', '.join(map(str, outcome.ranks))}\n" if outcome.ranks else ""
    return f"{where_else}{place}\n{short(mismatch)}" + ("" if outcome.apart is None else "\nranks part")


def short(mismatch: Mismatch) -> str:
    """What differs, and by which factor."""
    name = "lr" if mismatch.name.endswith(".lr") else str(mismatch.part)
    if mismatch.figures is None:
        try:
            return f"{name} ×{float(mismatch.candidate) / float(mismatch.reference):.3g}"
        except (ValueError, ZeroDivisionError):
            return f"{name}: {mismatch.kind}"
    ratio = mismatch.figures.norm_ratio
    if abs(ratio - 1) < 1e-4:
        return f"{name}, {mismatch.figures.max_ulp:,} ULP"
    return f"{name} ×{ratio:.4f}" if abs(ratio - 1) < 0.005 else f"{name} ×{ratio:.3g}"


def differences(outcomes: Outcomes) -> dict[str, dict[str, list[str]]]:
    """Each distinct cause, or what was measured where no cause is known, with its scenarios by framework."""
    told: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for scenario, row in outcomes.items():
        for framework, outcome in row.items():
            if not outcome.identical:
                told[cause(framework, scenario) or measured(outcome)][framework].append(scenario)
    return told


def in_places(places: Mapping[str, Sequence[str]]) -> str:
    """Frameworks and their scenarios, in a line."""
    return "; ".join(f"{framework}: {', '.join(scenarios)}" for framework, scenarios in places.items())


def measured(outcome: Outcome) -> str:
    """What the first difference of an outcome looks like."""
    if outcome.verdict is None:
        return outcome.refusal
    told = [outcome.verdict.explanation]
    if outcome.ranks:
        told[0] = f"On rank {', '.join(map(str, outcome.ranks))}: {told[0]}"
    if len(set(outcome.steps)) > 1:
        told.append("The reference makes {} steps, the framework {}.".format(*outcome.steps))
    if outcome.apart is not None:
        told.append(f"After step {outcome.apart} the ranks are no longer one model.")
    return "\n".join(told)


def as_records(outcomes: Outcomes) -> list[dict[str, Any]]:
    """For JSON: a record for each cell, with exact figures."""
    return [
        {"framework": framework, "scenario": scenario, "identical": outcome.identical, **_record(outcome)}
        for scenario, row in outcomes.items()
        for framework, outcome in row.items()
    ]


def _record(outcome: Outcome) -> dict[str, Any]:
    if outcome.verdict is None:
        return {"refusal": outcome.refusal}
    record: dict[str, Any] = {"steps": outcome.steps, "numbers": outcome.verdict.numbers}
    record |= {"ranks": outcome.ranks, "apart": outcome.apart}
    if outcome.verdict.first is not None:
        found, mismatch = outcome.verdict.first
        figures = mismatch.figures._asdict() if mismatch.figures else None
        record |= {"where": where(found), "part": mismatch.part, "name": mismatch.name, "kind": mismatch.kind}
        record |= {"reference": mismatch.reference, "candidate": mismatch.candidate, "figures": figures}
    return record


def _colored(outcome: Outcome) -> str:
    if outcome.identical:
        return "[green]identical[/]"
    color = "yellow" if outcome.verdict is None else "red"
    return f"[{color}]{cell(outcome)}[/]"
