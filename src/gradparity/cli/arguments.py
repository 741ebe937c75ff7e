"""Command lines of subcommands and experiments; errors end in one sentence on stderr and an exit code."""

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

from gradparity.errors import UserError, without_deterministic_form

P = ParamSpec("P")


class Parser(ArgumentParser):
    """An ``ArgumentParser`` that raises :class:`UserError` instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise :class:`UserError` with ``message``."""
        raise UserError(f"{message}; see {self.prog} --help")


def exits(program: str) -> Callable[[Callable[P, int]], Callable[P, int]]:
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
                told = without_deterministic_form(error)
                if told is None:
                    raise
                sentence = told
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
