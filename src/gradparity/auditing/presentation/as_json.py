"""The result of an audit for programs."""

from typing import Any

from gradparity.auditing.report import Report
from gradparity.auditing.watching.user_lines import Line


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
