"""Command lines of subcommands, which tell what is wrong with them as everything here does."""

from argparse import ArgumentParser
from typing import NoReturn

from gradparity.errors import UserError


class Parser(ArgumentParser):
    """An ``ArgumentParser`` that raises :class:`UserError` instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise ``message``."""
        raise UserError(f"{message}; see {self.prog} --help")
