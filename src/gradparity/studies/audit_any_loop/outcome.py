"""One loop, audited with its mistake and repaired."""

from collections.abc import Callable
from dataclasses import dataclass

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.finding import RuleFinding
from gradparity.auditing.report import Report, report
from gradparity.auditing.watching.watch import Watch


@dataclass(frozen=True)
class AuditedLoop:
    """The audits of a loop."""

    name: str
    mistake: str
    """The mistake, in one sentence."""
    code: str
    """The rule that it breaks."""
    facts: RunFacts
    """The facts of the loop with its mistake."""
    wrong: Report
    repaired: Report

    @property
    def finding(self) -> RuleFinding | None:
        """Return the finding if it is the only one, and the one that is known; else ``None``."""
        findings = self.wrong.findings
        return findings[0] if [f.rule.code for f in findings] == [self.code] else None

    @property
    def clean(self) -> bool:
        """Return whether nothing is said about the repair."""
        return self.repaired.verdict == "clean"


def audited_loop(loop: Callable[[bool], None], code: str) -> AuditedLoop:
    """Run a loop with its mistake and repaired, and audit both.

    Args:
        loop: called with whether it is to be repaired; its docstring names the mistake.
        code: the rule that the mistake breaks.
    """
    facts = _facts(loop, False)
    mistake = " ".join((loop.__doc__ or "").split())
    repaired = report(_facts(loop, True))
    return AuditedLoop(loop.__name__.replace("_", "-"), mistake, code, facts, report(facts), repaired)


def _facts(loop: Callable[[bool], None], repaired: bool) -> RunFacts:
    watch = Watch()
    with watch.watching():
        loop(repaired)
    return watch.facts()
