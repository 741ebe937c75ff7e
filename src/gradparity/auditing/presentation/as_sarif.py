"""The result of an audit for code review: SARIF 2.1.0 (https://sarifweb.azurewebsites.net)."""

from pathlib import Path
from typing import Any

from gradparity.auditing.finding import RuleVerdict
from gradparity.auditing.report import Report


def as_sarif(found: Report, root: Path) -> dict[str, Any]:
    """Return a report as SARIF, which code review understands.

    Args:
        found: the report.
        root: the folder of the repository; files in it are named relative to it.
    """
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
                                    "artifactLocation": {"uri": _relative(f.line.file, root)},
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


def _relative(file: str, root: Path) -> str:
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
