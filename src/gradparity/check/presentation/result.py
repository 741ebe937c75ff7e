"""The one result of a check: the probed loop, the known faults that it behaves like, and whether it passes."""

from collections.abc import Sequence
from dataclasses import dataclass

from gradparity.auditing.finding import RuleVerdict
from gradparity.auditing.watching.user_lines import Line
from gradparity.check.intended.intended_reference import Intended
from gradparity.check.lookup.fault_lookup import Finding, Match
from gradparity.check.running.probe import Probe
from gradparity.faults import FaultKind
from gradparity.trace.ranks import RankDifferences


@dataclass(frozen=True)
class CheckResult:
    """A loop that has been probed and looked up, on one rank or on several."""

    probe: Probe
    finding: Finding
    explanation: str = ""
    """Describes the first divergence; empty if there is none."""
    reference_changed: bool = False
    """True if the reference behaves differently in the process that the loop leaves."""
    ranks: RankDifferences | None = None
    """For a loop on several ranks: the difference of each rank from the reference."""
    lines: Sequence[Line] = ()
    """The lines of the user's file that wrote what differs first."""
    meant: tuple[Intended, ...] = ()
    """The changes to the reference that make it do what the loop means to do."""

    other_forwards: bool = False
    """True if the loop trains with an optimizer of its own, after other forwards than those of the reference."""
    updates: str = ""
    """A sentence on the updates that the loop makes itself; empty if an optimizer of PyTorch makes them."""

    @property
    def passed(self) -> bool:
        """Return whether the loop passes.

        It passes if it makes the updates of the reference, except for rounding, keeps no graphs, has no average that
        does not follow its steps, and leaves the process in a state in which the reference behaves the same.
        """
        kept = self.probe.graphs.steps_kept or self.probe.wrong_average
        return self.same_updates and not kept and not self.reference_changed

    @property
    def own_way(self) -> str:
        """Return a predicate on what the loop may do by intent, which no reference can judge; empty if nothing is.

        What an audit finds wrong is not meant, nor is an average that does not follow, nor numbers that are not finite.
        Another model that the loop trains explains more.
        """
        wrong = any(finding.verdict == RuleVerdict.WRONG for finding in self.probe.audit.findings)
        if wrong or self.probe.wrong_average or self.probe.also or self.probe.uncheckable:
            return ""
        return self.probe.ways.why_unlike(self.finding)

    @property
    def code(self) -> int:
        """Return the exit code of the command."""
        return 0 if self.passed else 2 if self.cannot_be_judged else 1

    @property
    def cannot_be_judged(self) -> bool:
        """Return whether nothing is known of the updates of the loop."""
        judged = self.probe.observed.end.finished and self.probe.trains and not self.probe.also
        unknown = self.finding.match == Match.UNKNOWN and not judged
        return self.other_forwards or unknown or bool(self.own_way)

    @property
    def same_updates(self) -> bool:
        """Return whether the loop makes the updates of the reference, except for rounding."""
        finding = self.finding
        if finding.match in (Match.FAULT, Match.PAIR):
            return all(fault.kind == FaultKind.ROUNDING for fault in finding.faults)
        if finding.match == Match.ROUNDING:
            return not finding.faults
        return finding.match in (Match.IDENTICAL, Match.SAME_UPDATES)
