"""The claims with their evidence as a result, and as Markdown."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

import torch
from rich.table import Table
from rich.text import Text

from gradparity.studies.claims.evidence import Claim, ClaimVerdict, Evidence, name_of, sentence_of
from gradparity.studies.result import ANSWER_PAGE, Result
from gradparity.tensorboard.pages import markdown_table

_COLORS = {ClaimVerdict.HOLDS: "green", ClaimVerdict.CAVEAT: "yellow", ClaimVerdict.FAILS: "red"}
RECORDS = "claims.json"


def claims_result(examined: Sequence[tuple[Claim, Evidence]]) -> Result:
    """Return the result: the number of claims by verdict, and the evidence for each."""
    count = Counter(evidence.verdict for _, evidence in examined)
    rows = (  # two columns, since TensorBoard would break words in four
        (f"**{name_of(claim)}** {sentence_of(claim)}", f"**{evidence.verdict}** {evidence.figure}{_instead(evidence)}")
        for claim, evidence in examined
    )
    return Result(
        sentence=(
            f"{count[ClaimVerdict.HOLDS]} hold, {count[ClaimVerdict.CAVEAT]} hold with a caveat, "
            f"{count[ClaimVerdict.FAILS]} fail as written, on torch {torch.__version__}."
        ),
        terminal=[_table(examined)],
        pages={ANSWER_PAGE: markdown_table(("claim", "verdict, and what was measured"), *rows)},
        records={
            RECORDS: [
                {"id": name_of(claim), "claim": sentence_of(claim), **asdict(evidence)} for claim, evidence in examined
            ]
        },
    )


def claims_markdown(examined: Sequence[tuple[Claim, Evidence]]) -> str:
    """Return the answer and the table as Markdown, for a README."""
    rows = (
        (f"**{name_of(claim)}**: {sentence_of(claim)}", evidence.verdict, evidence.figure, evidence.instead)
        for claim, evidence in examined
    )
    table = markdown_table(("claim", "verdict", "what was measured", "instead"), *rows)
    return f"**{claims_result(examined).sentence}**\n\n{table}"


def _table(examined: Sequence[tuple[Claim, Evidence]]) -> Table:
    """Return a table with columns claim, verdict, and measurement; below the measurement, the text to use instead."""
    table = Table(show_lines=True, expand=True)
    table.add_column("claim", ratio=1, overflow="fold")
    table.add_column("verdict", width=10)
    table.add_column("what was measured, → what to write instead", ratio=2, overflow="fold")
    for claim, evidence in examined:
        table.add_row(
            Text.assemble((name_of(claim), "bold"), f"\n{sentence_of(claim)}"),
            Text(evidence.verdict, style=_COLORS[evidence.verdict]),
            Text.assemble(evidence.figure, (_instead(evidence), "bold")),
        )
    return table


def _instead(evidence: Evidence) -> str:
    return f"\n→ {evidence.instead}" if evidence.instead else ""
