"""The ``gradparity`` command. Each subcommand is imported only when it is called."""

import sys
from collections.abc import Sequence
from importlib import import_module

from gradparity.cli.exit_codes import exit_codes

COMMANDS = {
    "audit": ("gradparity.cli.audit", "what is wrong in the loop of a script, which runs as it is"),
    "check": ("gradparity.cli.check", "which known fault a training loop has"),
    "claims": (
        "gradparity.studies.claims.command",
        "common claims about autograd.grad and .backward(), each with a verdict",
    ),
    "diff": ("gradparity.cli.diff", "where two recorded training loops first differ"),
    "show": ("gradparity.cli.show", "what a recorded training loop does, and what is wrong in it"),
}
"""For each subcommand, the module whose ``main`` runs it, and one line for the help."""

HELP = """\
usage: gradparity COMMAND [ARGUMENTS]

{commands}

`gradparity COMMAND --help` explains one. Exit codes: 0 parity, 1 a difference or fault, 2 unusable input."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that ``arguments`` (default: the command line) names, and return its exit code."""
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(HELP.format(commands="\n".join(f"  {name:8} {what}" for name, (_, what) in COMMANDS.items())))
        return 0
    if name not in COMMANDS:
        print(f"gradparity: {name!r} is no command; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return exit_codes(f"gradparity {name}")(import_module(COMMANDS[name][0]).main)(rest)
