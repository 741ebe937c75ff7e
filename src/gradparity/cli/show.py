"""``gradparity show``: what a recorded loop does, and what is wrong in it, as far as a trace shows it."""

import json
from argparse import Namespace
from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console

from gradparity.auditing.presentation.as_json import as_json
from gradparity.auditing.presentation.as_text import show_findings, show_statement
from gradparity.auditing.recorded.facts import facts_of
from gradparity.auditing.report import Report, headline, report
from gradparity.auditing.rules import RULES
from gradparity.auditing.rules.expected import Expected, expected
from gradparity.cli.arguments import Parser
from gradparity.errors import UserError
from gradparity.trace.ranks import traces_of
from gradparity.trace.trace_file import read

SHOWN = (
    "GP001", "GP002", "GP003", "GP004", "GP005",  # what was meant
    "GP102", "GP109", "GP201", "GP305", "GP306", "GP602", "GP605",
    "GP801", "GP802", "GP803", "GP804", "GP807", "GP811", "GP812", "GP813", "GP814",
)  # fmt: skip
"""The rules whose facts a trace holds. The others are not asked."""

NOT_IN_A_TRACE = (
    "a trace holds no lines, no weights of tokens, and no gradients that are left from one step to the next; "
    "gradparity audit sees these"
)


def main(arguments: Sequence[str]) -> int:
    """Print what a recorded loop does; return 0 if nothing is wrong, 1 if something is."""
    parser = Parser(
        "gradparity show",
        description="Print what a recorded loop does, and judge it as far as a trace shows it.",
        epilog="Exit codes: 0 nothing is wrong, 1 something is, 2 a trace that cannot be used.",
    )
    parser.add_argument("trace", type=Path, help="a folder that gradparity.record has written")
    parser.add_argument("--expect", default="", metavar="NAME=VALUE,...", help="what you meant, as for audit")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="for people, or for programs")
    given = parser.parse_args(arguments)
    meant = expected(given.expect)
    found = [_report(folder, meant) for folder in traces_of(given.trace)]
    if given.format == "json":
        print(json.dumps(as_json(found[0]) if len(found) == 1 else [as_json(one) for one in found]))
    else:
        _print(found, given)
    return 1 if any(one.wrong for one in found) else 0


def _report(folder: Path, meant: Expected) -> Report:
    facts = facts_of(read(folder))
    if not any(story.steps for story in facts.stories):
        raise UserError(f"{folder} holds no step of the optimizer, so nothing is shown; record a loop that steps")
    facts.notes.append(NOT_IN_A_TRACE)
    return report(facts, [code for code in RULES if code not in SHOWN], meant)


def _print(found: Sequence[Report], given: Namespace) -> None:
    """Print each report once, with the ranks that it is of if there are several."""
    console = Console(highlight=False)
    ranks: dict[str, list[int]] = {}
    for rank, one in enumerate(found):
        ranks.setdefault(_text(one, Console(file=StringIO(), highlight=False)), []).append(rank)
    for number, of in enumerate(ranks.values()):
        if len(found) > 1:
            names = f"rank {of[0]}" if len(of) == 1 else f"ranks {', '.join(map(str, of))}"
            console.print(f"--- {given.trace}, {names} ---", soft_wrap=True, markup=False)
        _text(found[of[0]], console)
        if number + 1 < len(ranks):
            console.print()


def _text(found: Report, console: Console) -> str:
    """Print a report, and return what was printed if the console keeps it."""
    show_findings(found.findings, console)
    if not found.findings:
        console.print(f"gradparity show: {headline(found)}, as far as a trace shows", soft_wrap=True, markup=False)
    show_statement(found, console)
    return console.file.getvalue() if isinstance(console.file, StringIO) else ""
