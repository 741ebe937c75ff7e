"""One grammar for options that choose by name, such as ``--only``."""

from argparse import ArgumentParser
from collections.abc import Iterable, Sequence

from gradparity.errors import UserError


def add_choice(parser: ArgumentParser, option: str, names: str) -> None:
    """Add ``option``, whose values :func:`choose` takes; ``names`` says in the help what can be chosen."""
    text = f"names or their beginnings, separated by commas: {names}"
    parser.add_argument(option, metavar="NAMES", nargs="+", action="extend", help=text)


def choose(option: str, texts: Sequence[str] | None, names: Iterable[str], known: str = "") -> list[str]:
    """Return those of ``names`` that the values ``texts`` of ``option`` stand for, in order; all if it is not given.

    A text is one name or several, separated by commas; a name may contain a comma itself. A whole name stands for
    itself alone, the beginning of names for all of them. Upper and lower case are the same.

    Args:
        option: such as ``--only``.
        texts: its values.
        names: all that exist.
        known: names them in the error message, if they are too many to list.

    Raises:
        UserError: if a text stands for no name.

    >>> choose("--only", ["Clip,amp"], ["amp", "amp-scale", "clipping, by norm", "clipping, by value"])
    ['amp', 'clipping, by norm', 'clipping, by value']
    """
    names, chosen = list(names), set[str]()
    if texts is None:
        return names
    for text in texts:
        for part in [text] if _meant(text, names) else text.split(","):
            if not (meant := _meant(part, names)):
                separator = "; " if any("," in name for name in names) else ", "
                raise UserError(f"{option} is {part.strip()!r}; choose from {known or separator.join(names)}")
            chosen.update(meant)
    return [name for name in names if name in chosen]


def _meant(text: str, names: Sequence[str]) -> list[str]:
    text = text.strip().lower()
    whole = [name for name in names if name.lower() == text]
    return whole or [name for name in names if text and name.lower().startswith(text)]
