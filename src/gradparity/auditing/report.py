"""The result of an audit, for people, for programs, and for code review (SARIF)."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from gradparity.auditing.events import Account
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict
from gradparity.auditing.lines import Line
from gradparity.auditing.loop_summary import Item, statement, unexercised
from gradparity.auditing.rules import RULES, judge
from gradparity.auditing.rules.as_meant import Expected

NOT_JUDGED = "not judged"
"""The verdict if no optimizer made a step."""


@dataclass(frozen=True)
class Report:
    """Everything that an audit says about one run."""

    findings: tuple[RuleFinding, ...] = ()
    does: tuple[Item, ...] = ()
    """Statements on the loop, each with its line."""
    unexercised: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Things that the audit has not seen."""
    steps: int = 0

    @property
    def wrong(self) -> bool:
        """Return whether anything is wrong."""
        return any(finding.verdict == RuleVerdict.WRONG for finding in self.findings)

    @property
    def verdict(self) -> str:
        """Return ``wrong``, ``unusual`` or ``clean``; ``not judged`` if no optimizer made a step."""
        if not self.steps and not self.findings:
            return NOT_JUDGED
        return next((str(v) for v in RuleVerdict if any(f.verdict == v for f in self.findings)), "clean")


def report(
    account: Account,
    ignored: Sequence[str] = (),
    meant: Expected | None = None,
    others: Sequence[Account] = (),
) -> Report:
    """Judge the facts of a run.

    Args:
        account: the facts of this process.
        ignored: codes of rules that are not asked.
        meant: what the user has said of the loop.
        others: the facts of the other ranks, in order.
    """
    ranks = account.world > 1
    words = "ranks train together; what follows is of rank 0" if ranks else "processes; what follows is of the first"
    does = [Item(f"{len(others) + 1} {words}")] if others else []
    return Report(
        tuple(judge(account, ignored, meant, others)),
        (*does, *statement(account)),
        tuple(unexercised(account)),
        tuple(account.notes),
        sum(story.steps for story in account.stories),
    )


def show(found: Report, console: Console) -> None:
    """Print a report: findings first, then what the loop does."""
    if not found.steps and not found.findings:
        console.print("gradparity audit: no torch optimizer made a step, so nothing was judged", soft_wrap=True)
    for finding in found.findings:
        _show(finding, console)
    if found.steps and not found.findings:
        console.print("gradparity audit: nothing wrong, nothing unusual", soft_wrap=True)
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
    show(found, Console(file=text, highlight=False, width=100))
    return text.getvalue()


def _show(finding: RuleFinding, console: Console) -> None:
    color = "red" if finding.verdict == RuleVerdict.WRONG else "yellow"
    rule = finding.rule
    console.print(Text.assemble((f"{finding.verdict}", f"bold {color}"), f"  {rule.code} {rule.name}"))
    where = "" if finding.step is None else f"step {finding.step}"
    if finding.microbatch is not None and where:
        where += f", microbatch {finding.microbatch}"
    console.print(
        Padding(Text(finding.sentence + (f" (first at {where})" if where else "")), (0, 0, 0, 2), expand=False)
    )
    for line in (finding.line, finding.other):
        if line is not None and line.number:
            console.print(Padding(Text(f"{line}: {line.source}", style="bold"), (0, 0, 0, 4), expand=False))
    if finding.verdict == RuleVerdict.UNUSUAL and rule.right_in:
        console.print(Padding(Text(f"Right in: {rule.right_in}."), (0, 0, 0, 2), expand=False))
    console.print(Padding(Text("Write instead:"), (0, 0, 0, 2), expand=False))
    console.print(Padding(Text(rule.instead), (0, 0, 0, 6), expand=False))
    console.print(Padding(Text(f"gradparity audit --explain {rule.code}", style="dim"), (0, 0, 1, 2), expand=False))


def explain(code: str) -> str:
    """Return the page of a rule."""
    rule: Rule = RULES[code]
    lines = [f"{rule.code} {rule.name}", "", rule.why, "", "Write instead:", *_indented(rule.instead)]
    if rule.right_in:
        lines += ["", f"Right in: {rule.right_in}."]
    if rule.reported:
        lines += ["", f"Reported: {rule.reported}"]
    lines += ["", f"To ignore it: --ignore {rule.code}, or a comment on the line: # gradparity: ignore {rule.code}"]
    return "\n".join(lines)


def _indented(code: str) -> list[str]:
    return [f"    {line}" for line in code.split("\n")]


def as_json(found: Report) -> dict[str, Any]:
    """Return a report for programs."""
    return {
        "verdict": found.verdict,
        "steps": found.steps,
        "findings": [
            {
                "verdict": str(f.verdict),
                "code": f.rule.code,
                "name": f.rule.name,
                "sentence": f.sentence,
                "line": _where(f.line),
                "other": _where(f.other),
                "step": f.step,
                "microbatch": f.microbatch,
                "times": f.times,
                "instead": f.rule.instead,
                "right_in": f.rule.right_in,
                "reported": f.rule.reported,
            }
            for f in found.findings
        ],
        "does": [{"text": item.text, "line": _where(item.line)} for item in found.does],
        "not_exercised": list(found.unexercised),
        "notes": list(found.notes),
    }


def _where(line: Line | None) -> dict[str, Any] | None:
    return None if line is None or not line.number else {"file": line.file, "line": line.number, "source": line.source}


def as_sarif(found: Report) -> dict[str, Any]:
    """Return a report as SARIF 2.1.0, which code review understands (https://sarifweb.azurewebsites.net)."""
    rules = list(dict.fromkeys(f.rule for f in found.findings))
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "gradparity",
                        "rules": [
                            {
                                "id": r.code,
                                "name": r.name,
                                "fullDescription": {"text": r.why},
                                "help": {"text": r.instead},
                            }
                            for r in rules
                        ],
                    }
                },
                "results": [
                    {
                        "ruleId": f.rule.code,
                        "level": "error" if f.verdict == RuleVerdict.WRONG else "note",
                        "message": {"text": f.sentence},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": f.line.file},
                                    "region": {"startLine": max(f.line.number, 1)},
                                }
                            }
                        ],
                    }
                    for f in found.findings
                ],
            }
        ],
    }
