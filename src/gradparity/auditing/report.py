"""The result of an audit: findings, what the loop does, and a verdict. ``presentation`` shows it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.finding import RuleFinding, RuleVerdict
from gradparity.auditing.loop_summary import Item, statement, unexercised
from gradparity.auditing.rules import judge
from gradparity.auditing.rules.expected import Expected

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
    facts: RunFacts,
    ignored: Sequence[str] = (),
    meant: Expected | None = None,
    others: Sequence[RunFacts] = (),
) -> Report:
    """Judge the facts of a run.

    Args:
        facts: the facts of this process.
        ignored: codes of rules that are not asked.
        meant: what the user has said of the loop.
        others: the facts of the other ranks, in order.
    """
    ranks = facts.world > 1
    words = "ranks train together; what follows is of rank 0" if ranks else "processes; what follows is of the first"
    does = [Item(f"{len(others) + 1} {words}")] if others else []
    return Report(
        tuple(judge(facts, ignored, meant, others)),
        (*does, *statement(facts)),
        tuple(unexercised(facts)),
        tuple(facts.notes),
        sum(story.steps for story in facts.stories),
    )


def headline(found: Report) -> str:
    """Return the verdict in a few words."""
    if found.verdict == NOT_JUDGED:
        return "no torch optimizer made a step, so nothing was judged"
    counts = Counter(finding.verdict for finding in found.findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in RuleVerdict if counts[verdict]) or (
        "nothing wrong, nothing unusual"
    )
