"""What came of many cells: in a sentence, and what is not identical as a table."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from gradparity.studies.matrix.run import Outcome, Result

MOST = 20
"""Reasons that are shown, the most frequent ones."""


def answer(results: Sequence[Result]) -> str:
    """How many cells came out how, and how much was compared."""
    counts = Counter(result.outcome for result in results)
    worst = max(result.max_ulp for result in results)
    return (
        f"{counts[Outcome.IDENTICAL]:,} of {len(results) - counts[Outcome.REFUSED]:,} cells are identical both ways, "
        f"{sum(result.numbers for result in results):,} numbers compared, at most {worst:,} ULP apart; "
        f"{counts[Outcome.REFUSED]:,} more are refused for a reason that is known."
    )


def reasons(results: Sequence[Result]) -> Table:
    """Why cells are not identical, as a table for the terminal."""
    grid = Table("cells", "outcome", "why", title="What is not identical", title_justify="left")
    for number, outcome, why in _counted(results)[:MOST]:
        grid.add_row(f"{number:,}", outcome, why)
    return grid


def page(results: Sequence[Result]) -> str:
    """The answer and the reasons, for a TensorBoard text page."""
    lines = (f"* **{number:,} {outcome}**: {why}" for number, outcome, why in _counted(results))
    return "\n".join([f"**{answer(results)}**", "", *lines])


def _counted(results: Sequence[Result]) -> list[tuple[int, str, str]]:
    """How often which outcome has which reason, the most telling outcome first."""
    counts = Counter((result.outcome, result.why) for result in results if result.outcome != Outcome.IDENTICAL)
    order = sorted(counts.items(), key=lambda item: (list(Outcome).index(item[0][0]), -item[1]))
    return [(number, str(outcome), " ".join(why.split())) for (outcome, why), number in order]
