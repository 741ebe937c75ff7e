"""The claims with their evidence, as a table for the terminal, as Markdown, and as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import torch
from rich.table import Table
from rich.text import Text

from gradparity.studies.claims.evidence import Claim, Evidence, Verdict, name_of, sentence_of
from gradparity.tensorboard.pages import in_markdown

COLORS = {Verdict.HOLDS: "green", Verdict.CAVEAT: "yellow", Verdict.FAILS: "red"}


def table(examined: Sequence[tuple[Claim, Evidence]]) -> Table:
    """Return a table with columns claim, verdict, and measurement; below the measurement, the text to use instead."""
    grid = Table(show_lines=True, expand=True)
    grid.add_column("claim", ratio=1, overflow="fold")
    grid.add_column("verdict", width=10)
    grid.add_column("what was measured, → what to write instead", ratio=2, overflow="fold")
    for claim, evidence in examined:
        found = Text(evidence.figure)
        found.append(_instead(evidence), style="bold")
        grid.add_row(
            Text.assemble((name_of(claim), "bold"), f"\n{sentence_of(claim)}"),
            Text(evidence.verdict, style=COLORS[evidence.verdict]),
            found,
        )
    return grid


def markdown(examined: Sequence[tuple[Claim, Evidence]]) -> str:
    """Return the answer and the table as Markdown, for a README."""
    rows = (
        (f"**{name_of(claim)}**: {sentence_of(claim)}", evidence.verdict, evidence.figure, evidence.instead)
        for claim, evidence in examined
    )
    return f"**{answer(examined)}**\n\n{in_markdown(('claim', 'verdict', 'what was measured', 'instead'), *rows)}"


def page(examined: Sequence[tuple[Claim, Evidence]]) -> str:
    """Return the same in two columns, for TensorBoard, which would break words in four."""
    rows = (
        (f"**{name_of(claim)}** {sentence_of(claim)}", f"**{evidence.verdict}** {evidence.figure}{_instead(evidence)}")
        for claim, evidence in examined
    )
    return f"**{answer(examined)}**\n\n{in_markdown(('claim', 'verdict, and what was measured'), *rows)}"


def as_json(examined: Sequence[tuple[Claim, Evidence]]) -> str:
    """Return a JSON list of objects with keys id, claim, verdict, figure, instead, torch."""
    records = [{"id": name_of(claim), "claim": sentence_of(claim), **asdict(evidence)} for claim, evidence in examined]
    return json.dumps(records, indent=2, ensure_ascii=False)


def answer(examined: Sequence[tuple[Claim, Evidence]]) -> str:
    """Return the number of claims by verdict, in one sentence."""
    count = Counter(evidence.verdict for _, evidence in examined)
    return (
        f"{count[Verdict.HOLDS]} hold, {count[Verdict.CAVEAT]} hold with a caveat, {count[Verdict.FAILS]} fail as "
        f"written, on torch {torch.__version__}."
    )


def _instead(evidence: Evidence) -> str:
    return f"\n→ {evidence.instead}" if evidence.instead else ""
