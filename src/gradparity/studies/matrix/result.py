"""The outcomes of many cells as a result: a heatmap, and a table of those that are not identical."""

from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from gradparity.studies.matrix.heatmap import HEATMAP_LEGEND, draw_counts, draw_heatmap, terminal_heatmap
from gradparity.studies.matrix.run import CellOutcome, CellResult
from gradparity.studies.result import ANSWER_PAGE, Result

MOST_REASONS = 20
"""The most reasons that the table shows."""


def matrix_result(cells: Sequence[CellResult]) -> Result:
    """Return the result of ``cells``."""
    counts = Counter(cell.outcome for cell in cells)
    reasons = _counted_reasons(cells)
    return Result(
        sentence=(
            f"{counts[CellOutcome.IDENTICAL]:,} of {len(cells) - counts[CellOutcome.REFUSED]:,} cells "
            "are identical both ways, "
            f"{sum(cell.numbers for cell in cells):,} numbers compared, "
            f"at most {max(cell.max_ulp for cell in cells):,} ULP apart; "
            f"{counts[CellOutcome.REFUSED]:,} more are refused for a known reason."
        ),
        holds=not counts[CellOutcome.DIFFERENT] + counts[CellOutcome.RAISED],
        terminal=[
            Text.from_markup(HEATMAP_LEGEND),
            terminal_heatmap(cells),
            *([_reason_table(reasons)] if reasons else []),
        ],
        pages={ANSWER_PAGE: "\n".join(f"* **{number:,} {outcome}**: {why}" for number, outcome, why in reasons)},
        figures={
            "1 glance/1 cells by model": draw_counts(cells),
            "1 glance/2 cells by model and each other axis": draw_heatmap(cells),
        },
    )


def _reason_table(reasons: Sequence[tuple[int, str, str]]) -> Table:
    table = Table("cells", "outcome", "why", title="Cells that are not identical", title_justify="left")
    for number, outcome, why in reasons[:MOST_REASONS]:
        table.add_row(f"{number:,}", outcome, why)
    return table


def _counted_reasons(cells: Sequence[CellResult]) -> list[tuple[int, str, str]]:
    """Count each pair of outcome and reason; the most telling outcome, then the most frequent reason, comes first."""
    counts = Counter((cell.outcome, cell.why) for cell in cells if cell.outcome != CellOutcome.IDENTICAL)
    order = sorted(counts.items(), key=lambda item: (list(CellOutcome).index(item[0][0]), -item[1]))
    return [(number, str(outcome), " ".join(why.split())) for (outcome, why), number in order]
