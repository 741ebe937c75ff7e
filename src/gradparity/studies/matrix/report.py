"""The outcomes of many cells in a sentence, and a table of those that are not identical."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table

from gradparity.studies.matrix.run import Outcome, Result

MOST = 20
"""The most reasons that the table shows."""


def answer(results: Sequence[Result]) -> str:
    """Return a sentence with the number of cells by outcome, and how much was compared."""
    counts = Counter(result.outcome for result in results)
    worst = max(result.max_ulp for result in results)
    return (
        f"{counts[Outcome.IDENTICAL]:,} of {len(results) - counts[Outcome.REFUSED]:,} cells are identical both ways, "
        f"{sum(result.numbers for result in results):,} numbers compared, at most {worst:,} ULP apart; "
        f"{counts[Outcome.REFUSED]:,} more are refused for a reason that is known."
    )


def reasons(results: Sequence[Result]) -> Table:
    """Return the reasons that cells are not identical, as a table for the terminal."""
    grid = Table("cells", "outcome", "why", title="What is not identical", title_justify="left")
    for number, outcome, why in _counted(results)[:MOST]:
        grid.add_row(f"{number:,}", outcome, why)
    return grid


def page(results: Sequence[Result]) -> str:
    """Return the answer and the reasons, for a TensorBoard text page."""
    lines = (f"* **{number:,} {outcome}**: {why}" for number, outcome, why in _counted(results))
    return "\n".join([f"**{answer(results)}**", "", *lines])


def _counted(results: Sequence[Result]) -> list[tuple[int, str, str]]:
    """Count each pair of outcome and reason; the most telling outcome, then the most frequent reason, comes first."""
    counts = Counter((result.outcome, result.why) for result in results if result.outcome != Outcome.IDENTICAL)
    order = sorted(counts.items(), key=lambda item: (list(Outcome).index(item[0][0]), -item[1]))
    return [(number, str(outcome), " ".join(why.split())) for (outcome, why), number in order]
