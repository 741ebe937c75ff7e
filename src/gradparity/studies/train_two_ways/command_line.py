"""A command line parsed into a :class:`Config`; an error in it is reported in one sentence."""

import difflib
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

from gradparity.cli.arguments import Parser
from gradparity.errors import UserError
from gradparity.processes.determinism import prepare_device
from gradparity.studies.train_two_ways.config import Config
from gradparity.studies.train_two_ways.yaml_fields import fields_in

SAVED_CONFIG = "config.yaml"
"""The file with the configuration, in the folder of a run."""


def parse_config(arguments: Sequence[str] | None, description: str | None) -> Config:
    """Return the configuration from ``arguments`` (default: the command line) and the YAML files that they name.

    Raises:
        UserError: in one sentence, with the field, its value and the allowed values.
    """
    parser = _parser(description)
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        given = parser.parse_args(list(_plain(arguments)))
        for path in reversed(given.config or []):
            arguments = [*_from_file(Path(path)), *arguments]
        given = parser.parse_args(list(_plain(arguments)))
        made = parser.instantiate(given)
        config = Config(**{name: made[name] for name in _names(Config)} | {"output": Path(given.output)})
    except ArgumentError as error:
        raise UserError(_one_sentence(str(error))) from error
    except ValueError as error:
        raise UserError(str(error)) from error
    if given.print_config:
        print(as_yaml(config), end="")
        raise SystemExit(0)
    prepare_device(config.device)
    return config


def parse_resume(arguments: Sequence[str] | None) -> tuple[Config, Path] | None:
    """Return the configuration saved in FOLDER, and FOLDER, for ``--resume FOLDER``; ``None`` without ``--resume``.

    Raises:
        UserError: if no configuration is saved there, or the command line would change it.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--quiet", action="store_true")
    given, others = parser.parse_known_args(arguments)
    if given.resume is None:
        return None
    if others:
        raise UserError(f"--resume continues {given.resume} with its own configuration; leave out {' '.join(others)}")
    if not (saved := given.resume / SAVED_CONFIG).is_file():
        raise UserError(f"{given.resume} holds no {SAVED_CONFIG}; name the folder of a run, such as runs/two_ways/1")
    return replace(parse_config(["--config", str(saved)], None), quiet=given.quiet), given.resume


def as_yaml(config: Config) -> str:
    """Return ``config`` as a YAML file that :func:`parse_config` reads back."""
    text: str = yaml.safe_dump({**asdict(config), "output": str(config.output)}, sort_keys=False)
    return text


def _parser(description: str | None) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(description=description, exit_on_error=False, allow_abbrev=False, print_config=None)
    parser.add_argument("--config", action="append", help="A YAML file with any of the fields below.")
    parser.add_argument("--print_config", action="store_true", help="Print the fields as they would be used, and exit.")
    parser.add_class_arguments(Config, skip={"output", "quiet"})
    parser.add_argument("--output", default="runs", help="Folder for TensorBoard files, exact figures and verdicts.")
    parser.add_argument("--resume", metavar="FOLDER", help="Continue the stopped run in this folder.")
    parser.add_argument("--quiet", action="store_true", help="Only the verdicts: no progress, no tables.")
    return parser


def _plain(arguments: Sequence[str]) -> Iterator[str]:
    """Yield ``arguments``, and refuse a value that is not plain but would be interpreted by the parser.

    The parser would do more with other text: import a class that is named for a group of fields, read a file, expand
    the aliases of YAML, or nest lists until the stack overflows.
    """
    for before, argument in zip(["", *arguments], arguments, strict=False):
        name, equals, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name in GROUPS:
            raise UserError(f"{name} takes its fields one by one, as in --{name}.{_names(GROUPS[name])[0]}")
        text = before in TEXT_OPTIONS if not equals else f"--{name}" in TEXT_OPTIONS
        if not text and not PLAIN.fullmatch(value if equals else argument):
            raise UserError(f"{_shown(argument)} is not understood; write a number, a name, or [NAME, NAME]")
        yield argument


def _from_file(path: Path) -> Iterator[str]:
    """Yield the fields in ``path``, as arguments."""
    for name, value in fields_in(path):
        if name == "quiet" and value in ("true", "false"):
            yield from ["--quiet"] * (value == "true")
        elif name in GROUPS:
            raise UserError(f"{name} is {_shown(value)}; it takes the fields {', '.join(_names(GROUPS[name]))}")
        elif name not in ALLOWED:
            raise UserError(_unknown(name))
        elif name == "quiet":
            raise UserError(f"quiet is {_shown(value)}; allowed is true or false")
        else:
            yield f"--{name}={value}"


def _names(group: Any) -> list[str]:
    return [field.name for field in fields(group)]


def _one_sentence(message: str) -> str:
    """Return the parser's message, in our words if it is about a field's value or name, else on one line."""
    field = re.search(r'Parser key "([\w.]+)"', message)
    value = re.findall(r"(?:Got|Given) value: (.*)", message)
    if field and value and field[1] in ALLOWED:
        return f"{field[1]} is {value[-1]}; allowed is {ALLOWED[field[1]]}"
    unknown = re.search(r"unrecognized arguments: -*([\w.]*)", message)
    if unknown:
        return _unknown(unknown[1] or message)
    return " ".join(message.split())


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, [*ALLOWED, *(n.split(".")[-1] for n in ALLOWED)], n=1)
    hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(ALLOWED)}"
    return f"{_shown(name)} is not a field; {hint}"


def _shown(text: str) -> str:
    """Return the text that the user typed, cut after 80 characters."""
    return (text if len(text) <= 80 else f"{text[:80]}...") or "''"


def _allowed(kind: object) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_args(kind):
        return f"{_allowed(get_args(kind)[0])}, or a list of them"
    return {int: "a whole number", float: "a number"}.get(cast(type, kind), "text")


GROUPS = {name: kind for name, kind in get_type_hints(Config).items() if is_dataclass(kind)}
ALLOWED = {
    **{name: _allowed(kind) for name, kind in get_type_hints(Config).items() if name not in GROUPS},
    **{f"{name}.{key}": _allowed(kind) for name, g in GROUPS.items() for key, kind in get_type_hints(g).items()},
}
TEXT_OPTIONS = ("--config", "--name", "--output", "--resume")
"""Options whose value is always text, even if it looks like a number or a list."""
PLAIN = re.compile(r"""\[?[\w .,+'"-]{0,300}\]?""")
"""A name, a number that a float can hold, a list of them, or an option."""
