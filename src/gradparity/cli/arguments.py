"""A parser of command lines that raises errors of one sentence."""

from argparse import ArgumentParser
from typing import NoReturn

from gradparity.errors import UserError


class Parser(ArgumentParser):
    """An ``ArgumentParser`` that raises :class:`UserError` instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise :class:`UserError` with ``message``."""
        raise UserError(f"{message}; see {self.prog} --help")


def check_range(option: str, value: int, least: int, most: int) -> None:
    """Raise :class:`UserError` unless ``value`` is from ``least`` to ``most``."""
    if not least <= value <= most:
        raise UserError(f"{option} is {value}; allowed is {least} to {most}")
