"""The report of a check for programs."""

import math
from dataclasses import asdict

from gradparity.check.presentation.remarks import remarks
from gradparity.check.presentation.report import headline
from gradparity.check.presentation.result import CheckResult
from gradparity.faults.how_to_fix import fix_of, link
from gradparity.trace.ranks import RankDifferences


def _ranks_as_json(found: RankDifferences) -> dict[str, object]:
    """Return which ranks diverge first, and at which step ranks are no longer one model."""
    apart = {"step": found.apart[0], "ranks": found.apart[1]} if found.apart else None
    return {"number": len(found.ranks), "diverging": found.diverging, "apart": apart}


def as_json(result: CheckResult) -> dict[str, object]:
    """Return the whole report, for programs."""
    finding, probe, end = result.finding, result.probe, result.probe.observed.end
    return {
        "loop": probe.name,
        "precision": probe.precision,
        "passed": result.passed,
        "compared_with": [one.words for one in result.meant],
        "answer": finding.match,
        "headline": headline(result),
        "remarks": remarks(result),
        "audit": [
            {
                "code": f.rule.code,
                "name": f.rule.name,
                "verdict": f.verdict,
                "sentence": f.sentence,
                "file": f.line.file,
                "line": f.line.number,
            }
            for f in probe.audit.findings
        ],
        "lines": [{"file": line.file, "line": line.number} for line in result.lines],
        "error": str(end) or None,
        "where": str(end.frame) if end.frame else None,
        "oracle": probe.oracle if probe.oracle is None or math.isfinite(probe.oracle) else None,
        "graphs_kept": probe.graphs.steps_kept,
        "averages": [asdict(average) for average in probe.averages],
        "updates": result.updates or None,
        "left": [*probe.left],
        "spoilt": result.reference_changed,
        "hooks_left": [*probe.hooks],
        "ranks": _ranks_as_json(result.ranks) if result.ranks else None,
        "first": str(finding.first.place) if finding.first else None,
        "explanation": result.explanation,
        "parted_from_closest": str(finding.diverges_at.place) if finding.diverges_at else None,
        "also_here": [fault.name for fault in finding.also_here],
        "tried": finding.tried,
        "faults": [
            {
                "name": fault.name,
                "kind": fault.kind,
                "symptom": fault.symptom,
                "needs": fault.needs,
                "mend": {where.__name__: fix_of(patch) for where, patch in fault.changes.items()},
                "sources": [link(source) for source in fault.sources],
            }
            for fault in finding.faults
        ],
    }
