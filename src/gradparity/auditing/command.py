"""``gradparity audit``: run a script as it is, and report what is wrong in its training loop."""

import json
import sys
from argparse import REMAINDER
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gradparity.auditing.ranks import PATIENCE, PATIENCE_INSIDE
from gradparity.auditing.report import NOT_JUDGED, Report, as_json, as_sarif, explain, report, show
from gradparity.auditing.rules import RULES
from gradparity.auditing.rules.as_meant import expected
from gradparity.auditing.run_script import Ended, run
from gradparity.auditing.spawned import Enough, go_on
from gradparity.auditing.torchrun import exit_code, terminated_with_a_report
from gradparity.auditing.watch import STEPS, Watch
from gradparity.cli.arguments import Parser, check_range
from gradparity.errors import UserError, writing

FORMATS = {"json": as_json, "sarif": as_sarif}

WIDTH = 100
"""Columns of a report that goes to no terminal."""

MOST_STEPS = 100_000


def main(arguments: Sequence[str]) -> int:
    """Audit a script; return 0 if nothing is wrong, 1 if something is, 2 if it could not be judged."""
    parser = Parser(
        "gradparity audit",
        description="Run a training script as it is, and report what is wrong in its loop. Nothing in it changes.",
        usage="gradparity audit [options] SCRIPT.py [its arguments] | -m MODULE [its arguments] | --explain CODE",
    )
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="steps of each optimizer to watch (default %(default)s)"
    )
    parser.add_argument("--then-stop", action="store_true", help="end the script once these steps were watched")
    parser.add_argument("--ignore", action="append", default=[], metavar="CODE", help="a rule, or GP4 for its theme")
    parser.add_argument(
        "--format", choices=("table", *FORMATS), default="table", help="for people, programs, or review"
    )
    parser.add_argument(
        "--expect", default="", metavar="NAME=VALUE,...", help="such as accumulation_steps=4,max_norm=1"
    )
    parser.add_argument("--output", type=Path, help="write the report to this file instead of standard error")
    parser.add_argument("--explain", metavar="CODE", help="print the page of a rule, and run nothing")
    parser.add_argument("-m", dest="module", action="store_true", help="run a module, as python -m does")
    parser.add_argument("script", nargs=REMAINDER, help="the script or module, and its own arguments")
    given = parser.parse_args(arguments)
    check_range("--steps", given.steps, 1, MOST_STEPS)
    if given.explain is not None:
        print(explain(_code(given.explain)))
        return 0
    ignored = [_code(code, beginning=True) for code in given.ignore]
    meant = expected(given.expect)
    watch = Watch(given.steps, _stop if given.then_stop else go_on)
    if not given.script:
        raise UserError("name the script to audit, such as gradparity audit train.py; see gradparity audit --help")
    watch.ranks.look()
    if given.output is not None and watch.ranks.reports:  # found out before the script runs, not after
        with writing(given.output):
            given.output.open("a").close()
    target, *its_own = given.script
    with terminated_with_a_report(watch.ranks.own is not None):
        ended = run(target, its_own, watch, module=given.module)
    account, *others = watch.accounts(PATIENCE_INSIDE if ended.code else PATIENCE)
    if not watch.ranks.reports:
        return ended.code
    found = report(account, ignored, meant, others)
    _write(found, ended, target, given.format, given.output)
    code = 2 if found.verdict == NOT_JUDGED else int(found.wrong)
    return code if watch.ranks.own is None else exit_code(found, code, ended)


def _stop() -> None:
    raise Enough


def _code(text: str, beginning: bool = False) -> str:
    """Return the code of a rule; with ``beginning``, the beginning of one will do."""
    code = text.upper()
    if code in RULES or (beginning and any(each.startswith(code) for each in RULES)):
        return code
    raise UserError(f"there is no rule {text}; there are {', '.join(RULES)}")


def _write(found: Report, ended: Ended, target: str, form: str, output: Path | None) -> None:
    if form in FORMATS:
        text = json.dumps(FORMATS[form](found) | ({"exit_code": ended.code} if form == "json" else {}))
        if output is None:
            print(text, file=sys.stderr)
        else:
            with writing(output):
                output.write_text(text + "\n")
        return
    if output is None:
        width = None if sys.stderr.isatty() else WIDTH
        _show(found, ended, target, Console(stderr=True, highlight=False, width=width))
    else:
        with writing(output), output.open("w") as file:
            _show(found, ended, target, Console(file=file, highlight=False, width=WIDTH))


def _show(found: Report, ended: Ended, target: str, console: Console) -> None:
    console.rule(f"gradparity audit of {target}", characters="-")
    show(found, console)
    if ended.code or ended.words:
        words = f" ({ended.words})" if ended.words else ""
        console.print(f"\n{target} ended with exit code {ended.code}{words}", soft_wrap=True, markup=False)
