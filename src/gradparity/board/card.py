"""The first difference on one page: where, in what, how large, what it means, and the lines that mend it."""

from gradparity.faults import FAULTS, Fault
from gradparity.parity.explain import likeness, size, what, where
from gradparity.parity.verdict import Verdict
from gradparity.report import headline


def sentence(verdict: Verdict) -> str:
    """The verdict for the head of a picture: that all is the same, or where it is not."""
    if verdict.first is None:
        return headline(verdict)
    found, mismatch = verdict.first
    return f"{where(found)}, {what(mismatch)}."


def card(verdict: Verdict, candidate: str) -> str:
    """Markdown for the page.

    Args:
        verdict: of the whole run.
        candidate: which loop it was; of a fault, the lines that mend it are known.
    """
    if verdict.first is None:
        return f"## There is none\n\n**{headline(verdict)}**\n\nThe two loops are one training."
    found, mismatch = verdict.first
    microbatch = "" if found.microbatch is None else f", microbatch {found.microbatch}"
    rows = {
        "where": f"step {found.step}{microbatch}, phase **{found.phase.name.lower()}**",
        "tensor": f"`{mismatch.name}`, of the {mismatch.part}",
        "what": f"{what(mismatch)}",
        "how large": size(mismatch, found),
        "what it means": likeness(found),
    }
    table = "\n".join(f"| **{name}** | {text} |" for name, text in rows.items() if text)
    page = f"## {where(found)}\n\n| | |\n|---|---|\n{table}\n"
    return page + mending(FAULTS[candidate]) if candidate in FAULTS else page


def mending(fault: Fault) -> str:
    """The lines of a fault, and those that mend it."""
    return f"\n### What the candidate does\n\n```python\n{fault.wrong.strip(chr(10))}\n```\n" + (
        f"\n### What mends it\n\n```python\n{fault.right.strip(chr(10))}\n```\n\n{fault.symptom}\n"
    )


def faults_page() -> str:
    """All faults that the candidate can be given, for comparison."""
    rows = (f"| `{fault.name}` | {fault.symptom} | {' '.join(fault.sources)} |" for fault in FAULTS.values())
    return "\n".join(["| fault | what one would notice | where it happened |", "|---|---|---|", *rows])
