"""``gradparity audit``: run a script as it is, and report what is wrong in its training loop."""

import json
import os
from argparse import REMAINDER, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

from rich.console import Console

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.presentation.as_html import as_html
from gradparity.auditing.presentation.as_json import as_json
from gradparity.auditing.presentation.as_markdown import as_markdown
from gradparity.auditing.presentation.as_sarif import as_sarif
from gradparity.auditing.presentation.as_text import WIDTH, show, without_trailing_spaces
from gradparity.auditing.presentation.rule_pages import explain, listed_rules
from gradparity.auditing.report import NOT_JUDGED, Report, report
from gradparity.auditing.report_destination import Destination
from gradparity.auditing.rules import RULES
from gradparity.auditing.rules.expected import Expected, expected
from gradparity.auditing.scripts.child_processes import ended_children
from gradparity.auditing.scripts.facts_of_ranks import PATIENCE, PATIENCE_INSIDE
from gradparity.auditing.scripts.run_script import Ended, run
from gradparity.auditing.scripts.spawned_processes import Enough, go_on
from gradparity.auditing.scripts.torchrun import exit_code, terminated_with_a_report
from gradparity.auditing.watching.watch import STEPS, Watch
from gradparity.cli.arguments import Parser, check_range
from gradparity.errors import UserError, writing

MOST_STEPS = 100_000


@dataclass(frozen=True)
class _Shown:
    """Everything that a format needs."""

    found: Report
    facts: RunFacts
    target: str
    ended: Ended
    folder: Path
    """The current folder when the script began."""

    @property
    def name(self) -> str:
        """Return the script for a heading."""
        return Path(self.target).name if Path(self.target).is_absolute() else self.target

    @property
    def ending(self) -> str:
        """Return how the script ended; empty if it just returned."""
        words = f" ({self.ended.words})" if self.ended.words else ""
        return f"{self.name} ended with exit code {self.ended.code}{words}" if self.ended.code or words else ""


FORMATS: dict[str, Callable[[_Shown], str]] = {
    "json": lambda shown: json.dumps(as_json(shown.found) | {"exit_code": shown.ended.code}) + "\n",
    "sarif": lambda shown: json.dumps(as_sarif(shown.found, shown.folder)) + "\n",
    "markdown": lambda shown: as_markdown(shown.found, shown.name, shown.ending),
    "html": lambda shown: as_html(shown.found, shown.facts, shown.name, shown.ending),
}


def main(arguments: Sequence[str]) -> int:
    """Audit a script; return 0 if nothing is wrong, 1 if something is, 2 if it could not be judged."""
    given = _parser().parse_args(arguments)
    check_range("--steps", given.steps, 1, MOST_STEPS)
    if given.list:
        print(listed_rules())
        return 0
    if given.explain is not None:
        print(explain(_code(given.explain)))
        return 0
    ignored = [_code(code, beginning=True) for code in given.ignore]
    if not given.script:
        raise UserError("name the script to audit, such as gradparity audit train.py; see gradparity audit --help")
    target, *its_own = given.script
    audit = _Audit(given, target, ignored, expected(given.expect))
    with terminated_with_a_report(audit.watch.ranks.own is not None):
        ended = run(target, its_own, audit.watch, given.module, audit.finish)
    return audit.finish(ended)


class _Audit:
    """One run: the places to write to are opened before the script begins, on the rank that reports."""

    def __init__(self, given: Namespace, target: str, ignored: Sequence[str], meant: Expected) -> None:
        self.given, self.target, self.ignored, self.meant = given, target, ignored, meant
        self.watch = Watch(given.steps, _stop if given.then_stop else go_on)
        self.watch.ranks.look()
        reports = self.watch.ranks.reports
        self.destination = Destination(given.output) if reports else None
        self.board = _board_folder(given.tensorboard) if reports and given.tensorboard is not None else None
        self.folder = Path.cwd()
        self.process = os.getpid()
        self.children = ended_children()

    def finish(self, ended: Ended) -> int:
        """Write the report, and return the exit code; a process that the script forked ends with its own code."""
        if os.getpid() != self.process:
            return ended.code
        facts, *others = self.watch.all_facts(PATIENCE_INSIDE if ended.code else PATIENCE)
        if self.destination is None:
            return ended.code
        found = report(facts, self.ignored, self.meant, others)
        if found.verdict == NOT_JUDGED and ended_children() > self.children:
            note = "the script started processes of its own, which are not watched; audit it with one process"
            found = replace(found, notes=(*found.notes, note))
        shown = _Shown(found, facts, self.target, ended, self.folder)
        made = FORMATS.get(self.given.format)
        self.destination.write(self._table(shown, self.destination.columns) if made is None else made(shown))
        if self.board is not None:
            from gradparity.auditing.presentation.board import write_board

            write_board(self.board, found, facts, shown.name)
        code = 2 if found.verdict == NOT_JUDGED else int(found.wrong)
        return code if self.watch.ranks.own is None else exit_code(found, code, ended)

    def _table(self, shown: _Shown, columns: int | None) -> str:
        text = StringIO()
        console = Console(file=text, highlight=False, width=columns or WIDTH, force_terminal=columns is not None)
        console.print(f"--- gradparity audit of {self.target} ---", soft_wrap=True, markup=False)
        show(shown.found, console)
        if shown.ending:
            console.print(f"\n{shown.ending}", soft_wrap=True, markup=False)
        if self.board is not None:
            from gradparity.tensorboard.folders import tensorboard_command

            console.print(f"\nSee it: {tensorboard_command(self.board.parent)}", soft_wrap=True, markup=False)
        return text.getvalue() if columns else without_trailing_spaces(text.getvalue())


def _parser() -> Parser:
    parser = Parser(
        "gradparity audit",
        description="Run a training script as it is, and report what is wrong in its loop. Nothing in it changes.",
        usage="gradparity audit [options] SCRIPT.py [its arguments] | -m MODULE [its arguments] | --list",
        epilog="Exit codes: 0 nothing is wrong, 1 something is, 2 not judged. The script's own code is in the report.",
    )
    watching = parser.add_argument_group("what is watched")
    watching.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m does")
    watching.add_argument(
        "--steps", type=int, default=STEPS, help="steps of each optimizer to watch (default %(default)s)"
    )
    watching.add_argument("--then-stop", action="store_true", help="end the script once these steps were watched")
    judging = parser.add_argument_group("what is judged")
    judging.add_argument(
        "--expect", default="", metavar="NAME=VALUE,...", help="what you meant: accumulation_steps=4,max_norm=1"
    )
    judging.add_argument("--ignore", action="append", default=[], metavar="CODE", help="a rule, or GP4 for its theme")
    judging.add_argument("--explain", metavar="CODE", help="print the page of a rule, and run nothing")
    judging.add_argument("--list", action="store_true", help="print all rules, and run nothing")
    writing_to = parser.add_argument_group("the report")
    writing_to.add_argument(
        "--format", choices=("table", *FORMATS), default="table",
        help="table for people (default), json for programs, sarif for code review, markdown for a pull request, "
        "html for a page with a picture",
    )  # fmt: skip
    writing_to.add_argument("--output", type=Path, metavar="FILE", help="write it to this file, not to standard error")
    writing_to.add_argument("--tensorboard", type=Path, metavar="FOLDER", help="write it for TensorBoard too")
    parser.add_argument("script", nargs=REMAINDER, help="the script or module, and its own arguments")
    return parser


def _board_folder(parent: Path) -> Path:
    from gradparity.tensorboard.folders import new_folder

    with writing(parent):
        return new_folder(parent.absolute())


def _stop() -> None:
    raise Enough


def _code(text: str, beginning: bool = False) -> str:
    """Return the code of a rule; with ``beginning``, the beginning of one will do."""
    code = text.upper()
    if code in RULES or (beginning and code and any(each.startswith(code) for each in RULES)):
        return code
    raise UserError(f"there is no rule {text}; gradparity audit --list prints all")
