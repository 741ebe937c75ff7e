"""What the user can mend."""


class UserError(Exception):
    """Something the user gave cannot be used; the message says what, and how to mend it, in one sentence."""

    def __str__(self) -> str:
        """The message on one line, which a terminal shows as it is: it may quote what a stranger has written."""
        return printable(" ".join(super().__str__().split()))


def printable(text: str) -> str:
    r"""``text`` with an escape for each character that is none to be read.

    >>> print(printable("größe\x1b[31m"))
    größe\x1b[31m
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
