"""The outcomes as a result: a table, the causes of the differences, and a record for each cell."""

import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from rich.table import Table
from rich.text import Text

from gradparity.parity.explain_difference import place_in_words
from gradparity.parity.mismatches import Mismatch
from gradparity.parity.place_in_training import END
from gradparity.studies.frameworks.known_issues import cause
from gradparity.studies.frameworks.watch import NOT_INSTALLED, FrameworkOutcome
from gradparity.studies.result import ANSWER_PAGE, Result, check_mark, plain_table
from gradparity.tensorboard.pages import markdown_table

Outcomes: TypeAlias = Mapping[str, Mapping[str, FrameworkOutcome]]
"""By scenario, then by framework."""


_LEGEND = "[green]✓[/] identical, bit for bit; [red]✗[/] differs; the number is that of its cause, below"


def frameworks_result(tables: Mapping[str, Outcomes]) -> Result:
    """Return the result of the outcomes on one rank and on two, by these words."""
    outcomes = {scenario: row for rows in tables.values() for scenario, row in rows.items()}
    differences = differences_of(outcomes)
    paragraphs: list[Text | str] = []
    for number, (why, places) in enumerate(differences.items(), start=1):
        paragraphs += [Text(f"\n{number}. {in_places(places)}", style="bold"), why]
        framework, (scenario, *_) = next(iter(places.items()))
        if why != (shown := measured(outcomes[scenario][framework])):
            paragraphs.append(Text(f"{framework}, {scenario}: {' '.join(shown.split())}", style="dim"))
    return Result(
        sentence=_sentence(outcomes),
        holds=not unexplained(outcomes),
        terminal=[
            Text.from_markup(_LEGEND),
            *(_table(rows, differences, f"On {ranks}") for ranks, rows in tables.items()),
            *paragraphs,
            "",
        ],
        pages={
            ANSWER_PAGE: "",
            **{
                f"{number} on {ranks}": difference_page(rows)
                for number, (ranks, rows) in enumerate(tables.items(), start=2)
            },
            "4 causes": "\n".join(f"* **{in_places(places)}.** {text}" for text, places in differences.items()),
        },
        records={"frameworks.json": _records(outcomes)},
    )


def _table(outcomes: Outcomes, differences: Mapping[str, Mapping[str, Sequence[str]]], title: str) -> Table:
    """Return a table of scenario × framework: identical, or the number of the cause in ``differences``."""
    table = plain_table(title, "", *map(_narrow, next(iter(outcomes.values()))))
    for scenario, row in outcomes.items():
        numbers = {
            framework: number
            for number, places in enumerate(differences.values(), start=1)
            for framework, scenarios in places.items()
            if scenario in scenarios
        }
        cells = (f"[red]✗ {numbers[name]}[/]" if name in numbers else check_mark(True) for name in row)
        table.add_row(scenario, *cells)
    return table


def difference_page(outcomes: Outcomes) -> str:
    """Return the first difference of each cell, for a TensorBoard text page, in lines too short to be broken there."""
    names = ["", *next(iter(outcomes.values()))]
    rows = [[scenario, *map(cell, row.values())] for scenario, row in outcomes.items()]
    return markdown_table(*((textwrap.fill(text, 11) for text in row) for row in (names, *rows)))


def _sentence(outcomes: Outcomes) -> str:
    """Return the number of cells with each result, in one sentence."""
    cells = [one for row in outcomes.values() for one in row.values()]
    identical = sum(one.identical for one in cells)
    none = sum(one.verdict is None for one in cells)
    return (
        f"{identical} of {len(cells)} cells are identical to the reference, bit for bit; "
        f"{len(cells) - identical - none} have a first difference, {none} have no verdict."
    )


def unexplained(outcomes: Outcomes) -> list[tuple[str, str]]:
    """Return framework and scenario of each difference without a known cause."""
    return [
        (framework, scenario)
        for scenario, row in outcomes.items()
        for framework, one in row.items()
        if one.verdict is not None and not one.identical and not cause(framework, scenario)
    ]


def cell(outcome: FrameworkOutcome) -> str:
    """Return ``identical``, or the place and size of the first difference, in a few short lines."""
    if outcome.verdict is None:
        return "not installed" if outcome == NOT_INSTALLED else "refuses"
    if outcome.verdict.first is None:
        return "identical"
    found, mismatch = outcome.verdict.first
    place = "after the end" if found.place == END else f"step {found.place.step} {found.place.phase.name.lower()}"
    where_else = f"rank {', '.join(map(str, outcome.ranks))}\n" if outcome.ranks else ""
    return f"{where_else}{place}\n{size_in_words(mismatch)}" + ("" if outcome.apart is None else "\nranks part")


def size_in_words(mismatch: Mismatch) -> str:
    """Return the part that differs, and by which factor or how many ULP."""
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


def differences_of(outcomes: Outcomes) -> dict[str, dict[str, list[str]]]:
    """Return each distinct cause, or the measurement if no cause is known, with its scenarios by framework."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for scenario, row in outcomes.items():
        for framework, outcome in row.items():
            if not outcome.identical:
                found[cause(framework, scenario) or measured(outcome)][framework].append(scenario)
    return found


def in_places(places: Mapping[str, Sequence[str]]) -> str:
    """Return frameworks and their scenarios, on one line."""
    return "; ".join(f"{framework}: {', '.join(scenarios)}" for framework, scenarios in places.items())


def measured(outcome: FrameworkOutcome) -> str:
    """Describe the first difference of an outcome, or why nothing was compared."""
    if outcome.verdict is None:
        return outcome.refusal
    sentences = [outcome.verdict.explanation]
    if outcome.ranks:
        sentences[0] = f"On rank {', '.join(map(str, outcome.ranks))}: {sentences[0]}"
    if len(set(outcome.steps)) > 1:
        sentences.append("The reference makes {} steps, the framework {}.".format(*outcome.steps))
    if outcome.apart is not None:
        sentences.append(f"After step {outcome.apart} the ranks are no longer one model.")
    return "\n".join(sentences)


def _records(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Return a record for each cell, with exact figures, for JSON."""
    return [
        {"framework": framework, "scenario": scenario, "identical": outcome.identical, **_record(outcome)}
        for scenario, row in outcomes.items()
        for framework, outcome in row.items()
    ]


def _record(outcome: FrameworkOutcome) -> dict[str, Any]:
    if outcome.verdict is None:
        return {"refusal": outcome.refusal}
    record: dict[str, Any] = {"steps": outcome.steps, "numbers": outcome.verdict.numbers}
    record |= {"ranks": outcome.ranks, "apart": outcome.apart}
    if outcome.verdict.first is not None:
        found, mismatch = outcome.verdict.first
        figures = mismatch.figures._asdict() if mismatch.figures else None
        record |= {
            "where": place_in_words(found.place),
            "part": mismatch.part,
            "name": mismatch.name,
            "kind": mismatch.kind,
        }
        record |= {"reference": mismatch.reference, "candidate": mismatch.candidate, "figures": figures}
    return record


def _narrow(name: str) -> str:
    """Break the heading of a column, so that all columns fit into 80 characters."""
    return name.replace(", ", "\n").replace("Accelerate", "Accel-\nerate").replace("transformers", "trans-\nformers")
