"""Command lines of subcommands and experiments; errors end in one sentence on stderr and an exit code."""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import NoReturn, ParamSpec

from gradparity.errors import UserError, without_deterministic_form

P = ParamSpec("P")


class Parser(ArgumentParser):
    """An ``ArgumentParser`` that raises :class:`UserError` instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise :class:`UserError` with ``message``."""
        raise UserError(f"{message}; see {self.prog} --help")


def exit_codes(program: str) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Wrap a ``main`` so that it returns this project's exit codes.

    The code is what ``main`` returns; 2, after one sentence on stderr, for an error that the user can fix; 130 after
    Ctrl-C.
    """

    def decorate(main: Callable[P, int]) -> Callable[P, int]:
        @wraps(main)
        def call(*args: P.args, **kwargs: P.kwargs) -> int:
            code = 2
            try:
                return main(*args, **kwargs)
            except UserError as error:
                sentence = str(error)
            except OSError as error:
                refused = f"{error.filename or 'a file'} cannot be written ({error.strerror})"
                sentence = str(UserError(f"{refused}; choose a folder with --output"))
            except RuntimeError as error:
                found = without_deterministic_form(error)
                if found is None:
                    raise
                sentence = found
            except KeyboardInterrupt as error:
                code, sentence = 130, f"stopped; what was written until now stays{error}"
            print(f"{program}: {sentence}", file=sys.stderr)
            return code

        return call

    return decorate


def check_range(option: str, value: int, least: int, most: int) -> None:
    """Raise :class:`UserError` unless ``value`` is from ``least`` to ``most``."""
    if not least <= value <= most:
        raise UserError(f"{option} is {value}; allowed is {least} to {most}")


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
