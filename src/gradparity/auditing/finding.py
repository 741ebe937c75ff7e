"""A rule, and what it has found: a verdict with the lines and figures that show it."""

from dataclasses import dataclass
from enum import StrEnum

from gradparity.auditing.watching.user_lines import Line


class RuleVerdict(StrEnum):
    """The verdicts of a rule. What a loop never came to is no verdict: it is listed apart, as not exercised."""

    WRONG = "wrong"
    """A promise of PyTorch, or of the mean over the window, is broken, and the bits show it."""
    UNUSUAL = "unusual"
    """Right in some methods, which the rule names."""


@dataclass(frozen=True)
class Rule:
    """A rule with a stable code, and its page."""

    code: str
    """``GP`` and three digits; the first one is the theme."""
    name: str
    why: str
    """The effect on the training, in a few sentences."""
    instead: str
    """The code to write instead."""
    right_in: str = ""
    """The methods in which it is right, if there are any."""
    reported: str = ""
    """The address of a report of it in the wild."""


@dataclass(frozen=True)
class RuleFinding:
    """One thing that a rule has found."""

    rule: Rule
    verdict: RuleVerdict
    sentence: str
    line: Line
    """The line that breaks the rule."""
    other: Line | None = None
    """The line that it collides with."""
    step: int | None = None
    microbatch: int | None = None
    times: int = 1
    """The number of steps that show it."""

    @property
    def places(self) -> list[str]:
        """Return its lines with their text, each once."""
        lines = [line for line in (self.line, self.other) if line is not None and line.number]
        return list(dict.fromkeys(f"{line}: {line.source}".removesuffix(": ") for line in lines))

    @property
    def where(self) -> str:
        """Return the step and microbatch in words; empty if it is not of one step."""
        if self.step is None:
            return ""
        return f"step {self.step}" + ("" if self.microbatch is None else f", microbatch {self.microbatch}")


def times(count: int, of: str = "step") -> str:
    """Return a number with its noun.

    >>> times(1), times(3)
    ('1 step', '3 steps')
    """
    return f"{count} {of}{'' if count == 1 else 's'}"
