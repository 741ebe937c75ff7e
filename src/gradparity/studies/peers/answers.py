"""The results of other libraries' checks on a loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gradparity.errors import in_a_line


@dataclass(frozen=True)
class Answers:
    """The results of a library's checks on one loop."""

    raised: Mapping[str, str]
    """The message of each failed check, on one line, by the check's name."""
    passed: tuple[str, ...] = ()
    """The names of the checks that passed."""

    @property
    def expressed(self) -> bool:
        """Return whether the loop can be expressed in the library's interface at all."""
        return bool(self.raised or self.passed)

    @property
    def caught(self) -> bool:
        """Return whether any check failed."""
        return bool(self.raised)


CANNOT = Answers({})
"""The answer for a loop that cannot be expressed in a library's interface."""


def asked(checks: Mapping[str, Callable[[], object]]) -> Answers:
    """Call each check and collect the results. A check that raises, or whose loop raises, counts as failed."""
    raised: dict[str, str] = {}
    for name, check in checks.items():
        try:
            check()
        except Exception as error:
            raised[name] = in_a_line(error)
    return Answers(raised, tuple(name for name in checks if name not in raised))
