"""The result of an audit as Markdown, short enough for a pull request."""

import re

from gradparity.auditing.finding import RuleFinding, RuleVerdict, times
from gradparity.auditing.report import Report, headline

_MEANS_SOMETHING = re.compile(r"([\\`*_\[\]<>#|~$])")


def as_markdown(found: Report, target: str, ending: str = "") -> str:
    """Return a report as Markdown that GitHub shows: findings first, then what the loop does.

    Args:
        found: the report.
        target: the script, for the heading.
        ending: a sentence on how the script ended, if it did not just return.
    """
    parts = [f"### gradparity audit of {plain(target)}: {headline(found)}", *findings_in_markdown(found)]
    if ending:
        parts.append(plain(ending))
    parts += _folded(f"What the loop does ({times(found.steps)} watched)", does_in_markdown(found))
    parts += _folded("Not exercised", unexercised_in_markdown(found))
    parts += [f"Note: {plain(note)}" for note in found.notes]
    return "\n\n".join(parts) + "\n"


def findings_in_markdown(found: Report) -> list[str]:
    """Return the paragraphs of all findings."""
    return [part for finding in found.findings for part in _finding(finding)]


def does_in_markdown(found: Report) -> str:
    """Return a list of what the loop does, each with its line."""
    where = [f" ({code(str(i.line))})" if i.line is not None and i.line.number else "" for i in found.does]
    return _list([plain(item.text) + line for item, line in zip(found.does, where, strict=True)])


def unexercised_in_markdown(found: Report) -> str:
    """Return a list of what no step has shown."""
    return _list([plain(words) for words in found.unexercised])


def _list(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _finding(finding: RuleFinding) -> list[str]:
    rule = finding.rule
    where = f" (first at {finding.where})" if finding.where else ""
    parts = [f"**{finding.verdict}** {rule.code} {rule.name}: {plain(finding.sentence)}{where}"]
    if finding.places:
        parts.append(fenced("\n".join(finding.places)))
    if finding.verdict == RuleVerdict.UNUSUAL and rule.right_in:
        parts.append(f"Right in: {plain(rule.right_in)}.")
    return [*parts, "Write instead:", fenced(rule.instead)]


def _folded(title: str, content: str) -> list[str]:
    return [f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"] if content else []


def plain(text: str) -> str:
    r"""Return text that Markdown shows as it is: no markup, no element, and nobody is mentioned.

    >>> print(plain("a_b <i> @you"))
    a\_b \<i\> &#64;you
    """
    return _MEANS_SOMETHING.sub(r"\\\1", " ".join(text.split())).replace("@", "&#64;")


def code(text: str) -> str:
    """Return text in one line as code."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    ticks = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def fenced(text: str) -> str:
    """Return lines of Python, in a fence that is longer than any in them."""
    fence = "`" * max(3, *(len(ticks) + 1 for ticks in re.findall("`+", text)), 3)
    return f"{fence}python\n{text}\n{fence}"
