"""Text pages: the tables that a terminal shows, and the answer to an experiment's question.

TensorBoard breaks words if a table is wider than its page. So cells are short, or columns are few.
"""

from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

ANSWER_RUN = "the_answer"
"""The name of the run that holds the pages."""


def table_page(table: Table) -> str:
    r"""Return a table for the terminal as Markdown.

    >>> table = Table("way", "error")
    >>> table.add_row("a | b", "[green]0\nULP[/]")
    >>> print(table_page(table))
    | way | error |
    |---|---|
    | a \| b | 0<br>ULP |
    """
    head, *rows = zip(*([column.header, *column.cells] for column in table.columns), strict=True)
    title = f"**{_plain(table.title)}**\n\n" if table.title else ""
    return title + markdown_table(*(map(_plain, row) for row in (head, *rows)))


def markdown_table(head: Iterable[str], *rows: Iterable[str]) -> str:
    """Return a Markdown table of plain text."""
    cells = [[cell.replace("|", r"\|").replace("\n", "<br>") for cell in row] for row in (head, *rows)]
    first, *others = (f"| {' | '.join(row)} |" for row in cells)
    return "\n".join([first, "|---" * len(cells[0]) + "|", *others])


def _plain(cell: RenderableType) -> str:
    """Return the text of a cell, without its style."""
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
