"""Command lines of subcommands and experiments, which tell what is wrong with them as everything here does."""

import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from functools import wraps
from typing import NoReturn, TypeAlias

from gradparity.errors import UserError

Main: TypeAlias = Callable[[Sequence[str] | None], int]


class Parser(ArgumentParser):
    """An ``ArgumentParser`` that raises :class:`UserError` instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise ``message``."""
        raise UserError(f"{message}; see {self.prog} --help")


def exits(program: str) -> Callable[[Main], Main]:
    """Make of a ``main`` one with the exit codes of this project.

    They are what it returns; 2, after one sentence, where the user can mend something; 130 where it was stopped.
    """

    def decorate(main: Main) -> Main:
        @wraps(main)
        def call(arguments: Sequence[str] | None = None) -> int:
            code = 2
            try:
                return main(arguments)
            except UserError as error:
                sentence = str(error)
            except OSError as error:
                sentence = f"{error}; choose a folder that can be written with --output"
            except KeyboardInterrupt:
                code, sentence = 130, "stopped; what was written until now stays"
            print(f"{program}: {' '.join(sentence.split())}", file=sys.stderr)  # also where a path has line breaks
            return code

        return call

    return decorate
