"""What other libraries say of a loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gradparity.check.observe import in_a_line


@dataclass(frozen=True)
class Answers:
    """What the checks of a library say of one loop."""

    raised: Mapping[str, str]
    """What each check that failed said, on a line, by its name."""
    passed: tuple[str, ...] = ()
    """The checks that had nothing to say."""

    @property
    def expressed(self) -> bool:
        """Whether the loop can be put to the library at all."""
        return bool(self.raised or self.passed)

    @property
    def caught(self) -> bool:
        """Whether any check failed."""
        return bool(self.raised)


CANNOT = Answers({})
"""For a loop that cannot be expressed in the interface of a library."""


def asked(checks: Mapping[str, Callable[[], object]]) -> Answers:
    """Call each check; one that fails, or that the loop stops by raising, raises."""
    raised: dict[str, str] = {}
    for name, check in checks.items():
        try:
            check()
        except Exception as error:
            raised[name] = in_a_line(error)
    return Answers(raised, tuple(name for name in checks if name not in raised))
