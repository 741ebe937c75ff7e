"""The claims with their evidence, as a table for the terminal, as Markdown, and as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import torch
from rich.table import Table
from rich.text import Text

from gradparity.claims.evidence import Claim, Evidence, Verdict, name_of, sentence_of

COLORS = {Verdict.HOLDS: "green", Verdict.CAVEAT: "yellow", Verdict.FAILS: "red"}


def table(examined: Sequence[tuple[Claim, Evidence]]) -> Table:
    """Claim × verdict × what was measured, and below that what to write instead."""
    grid = Table(show_lines=True, expand=True)
    grid.add_column("claim", ratio=1, overflow="fold")
    grid.add_column("verdict", width=10)
    grid.add_column("what was measured, → what to write instead", ratio=2, overflow="fold")
    for claim, evidence in examined:
        found = Text(evidence.figure)
        if evidence.instead:
            found.append(f"\n→ {evidence.instead}", style="bold")
        grid.add_row(
            Text.assemble((name_of(claim), "bold"), f"\n{sentence_of(claim)}"),
            Text(evidence.verdict, style=COLORS[evidence.verdict]),
            found,
        )
    return grid


def markdown(examined: Sequence[tuple[Claim, Evidence]]) -> str:
    """The answer and the table, for a TensorBoard text page or a README."""
    lines = [f"**{answer(examined)}**", "", "| claim | verdict | what was measured | instead |", "|---|---|---|---|"]
    for claim, evidence in examined:
        cells = (
            f"**{name_of(claim)}**: {sentence_of(claim)}",
            evidence.verdict,
            evidence.figure,
            evidence.instead,
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), '<br>') for cell in cells)} |")
    return "\n".join(lines)


def as_json(examined: Sequence[tuple[Claim, Evidence]]) -> str:
    """A list of objects: id, claim, verdict, figure, instead, torch."""
    records = [{"id": name_of(claim), "claim": sentence_of(claim), **asdict(evidence)} for claim, evidence in examined]
    return json.dumps(records, indent=2, ensure_ascii=False)


def answer(examined: Sequence[tuple[Claim, Evidence]]) -> str:
    """How many came out how, in one sentence."""
    count = Counter(evidence.verdict for _, evidence in examined)
    return (
        f"{count[Verdict.HOLDS]} hold, {count[Verdict.CAVEAT]} hold with a caveat, {count[Verdict.FAILS]} fail as "
        f"written, on torch {torch.__version__}."
    )
