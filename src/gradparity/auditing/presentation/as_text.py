"""The result of an audit for people: findings first, then what the loop does."""

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from gradparity.auditing.finding import RuleFinding, RuleVerdict
from gradparity.auditing.report import Report, headline

WIDTH = 100
"""Columns of a report that goes to no terminal."""


def show(found: Report, console: Console) -> None:
    """Print a report: findings first, then what the loop does."""
    show_findings(found.findings, console)
    if not found.findings:
        console.print(f"gradparity audit: {headline(found)}", soft_wrap=True, markup=False)
    show_statement(found, console)


def show_statement(found: Report, console: Console) -> None:
    """Print what the loop does, what no step has shown, and what the audit has not seen."""
    if found.does:
        console.print("\nWhat the loop does")
        for item in found.does:
            where = f"  ({item.line})" if item.line is not None and item.line.number else ""
            console.print(Padding(Text(f"{item.text}{where}"), (0, 0, 0, 2), expand=False))
    if found.unexercised:
        console.print("\nNot exercised")
        for words in found.unexercised:
            console.print(Padding(Text(words), (0, 0, 0, 2), expand=False))
    for note in found.notes:
        console.print(Text(f"\nNote: {note}"))


def as_text(found: Report) -> str:
    """Return a report as plain text, 100 characters wide."""
    text = StringIO()
    show(found, Console(file=text, highlight=False, width=WIDTH))
    return without_trailing_spaces(text.getvalue())


def without_trailing_spaces(text: str) -> str:
    """Return text without the spaces with which rich fills a line."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def show_findings(findings: Sequence[RuleFinding], console: Console) -> None:
    """Print findings, with an empty line between them."""
    for index, finding in enumerate(findings):
        if index:
            console.print()
        _show_finding(finding, console)


def _show_finding(finding: RuleFinding, console: Console) -> None:
    """Print a finding: sentence, lines, and what to write instead."""
    color = "red" if finding.verdict == RuleVerdict.WRONG else "yellow"
    rule = finding.rule
    console.print(Text.assemble((f"{finding.verdict}", f"bold {color}"), f"  {rule.code} {rule.name}"))
    where = f" (first at {finding.where})" if finding.where else ""
    console.print(Padding(Text(finding.sentence + where), (0, 0, 0, 2), expand=False))
    for line in (finding.line, finding.other):
        if line is not None and line.number:
            console.print(Padding(Text(f"{line}: {line.source}", style="bold"), (0, 0, 0, 4), expand=False))
    if finding.verdict == RuleVerdict.UNUSUAL and rule.right_in:
        console.print(Padding(Text(f"Right in: {rule.right_in}."), (0, 0, 0, 2), expand=False))
    console.print(Padding(Text("Write instead:"), (0, 0, 0, 2), expand=False))
    console.print(Padding(Text(rule.instead), (0, 0, 0, 6), expand=False))
    why = Text(f"Why: gradparity audit --explain {rule.code}", style="dim")
    console.print(Padding(why, (0, 0, 0, 2), expand=False))
