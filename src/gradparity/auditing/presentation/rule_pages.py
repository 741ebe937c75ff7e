"""The page of a rule, and the list of all rules."""

from gradparity.auditing.finding import Rule
from gradparity.auditing.rules import RULES


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


def listed_rules() -> str:
    """Return all rules, one a line: code, name, and the first sentence of the page."""
    width = max(len(rule.name) for rule in RULES.values())
    return "\n".join(f"{rule.code}  {rule.name:<{width}}  {first_sentence(rule.why)}" for rule in RULES.values())


def first_sentence(text: str) -> str:
    """Return a text up to its first full stop that is followed by a capital letter.

    >>> first_sentence("The p.grad is left. It is added to.")
    'The p.grad is left.'
    """
    for index, (full_stop, space, letter) in enumerate(zip(text, text[1:], text[2:], strict=False)):
        if full_stop == "." and space == " " and letter.isupper():
            return text[: index + 1]
    return text
