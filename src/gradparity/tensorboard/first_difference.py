"""The first difference on one page: its place, tensor, size and meaning, and the lines that fix it."""

from gradparity.faults import FAULTS, Fault
from gradparity.faults.how_to_fix import fix_of, link
from gradparity.parity.explain_difference import magnitude, mismatch_in_words, place_in_words
from gradparity.parity.report import verdict_headline
from gradparity.parity.verdict import Verdict


def first_difference_sentence(verdict: Verdict) -> str:
    """Return the verdict for the title of a picture: identical, or where the first difference is."""
    if verdict.first is None:
        text = verdict_headline(verdict)
        return text[0].lower() + text[1:]
    found, mismatch = verdict.first
    return f"not identical. {place_in_words(found.place)}, {mismatch_in_words(mismatch)}."


def first_difference_page(verdict: Verdict, candidate: str) -> str:
    """Return the page in Markdown.

    Args:
        verdict: of the whole run.
        candidate: the name of the loop; if it is a known fault, the page shows the lines that fix it.
    """
    if verdict.first is None:
        return f"## No difference\n\n**{verdict_headline(verdict)}**\n\nThe two loops are one training."
    found, mismatch = verdict.first
    rows = {
        "tensor": f"`{mismatch.name}` ({mismatch.part}, {mismatch.kind})",
        "how large": magnitude(mismatch, found),
        "what it means": verdict.likely_cause.words,
    }
    table = "\n".join(f"| **{name}** | {text} |" for name, text in rows.items() if text)
    text = f"| {place_in_words(found.place)} | {mismatch_in_words(mismatch)} |\n|---|---|\n{table}\n"
    return text + _fix_lines(FAULTS[candidate]) if candidate in FAULTS else text


def _fix_lines(fault: Fault) -> str:
    """Return Markdown for a fault: its symptom, and its lines next to the lines that fix it."""
    change = "\n".join(line for patch in fault.changes.values() for line in fix_of(patch))
    return f"\n**The fix** (`-` is what `{fault.name}` does)\n\n```diff\n{change}\n```\n\nSymptom: {fault.symptom}\n"


def faults_page() -> str:
    """Return a Markdown table of all known faults, for comparison."""
    rows = (f"| `{fault.name}` | {fault.symptom} | {' '.join(map(link, fault.sources))} |" for fault in FAULTS.values())
    return "\n".join(["| fault | symptom | sources |", "|---|---|---|", *rows])
