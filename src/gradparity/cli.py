"""From a command line to a :class:`Config`; what is wrong with one is told in one sentence."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from gradparity.arguments import Parser
from gradparity.config import Config
from gradparity.errors import UserError

SAVED = "config.yaml"
"""Where a run's folder has its configuration."""


def parse(arguments: Sequence[str] | None, description: str | None) -> Config:
    """The configuration that ``arguments`` (default: the command line) and the YAML files they name describe.

    Raises:
        UserError: in one sentence, with the field, its value and what is allowed.
    """
    parser = _parser(description)
    try:
        given = parser.parse_args(arguments)
        for name, group in GROUPS.items():
            if not isinstance(given[name], Namespace):
                raise UserError(f"{name} is {given[name]!r}; it takes the fields {', '.join(_names(group))}")
        made = parser.instantiate(given)
        config = Config(**{name: made[name] for name in _names(Config)})
    except ArgumentError as error:
        raise UserError(_one_sentence(str(error))) from error
    except ValueError as error:
        raise UserError(str(error)) from error
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch finds no GPU here; use --device cpu")
    return config


def resumed(arguments: Sequence[str] | None) -> tuple[Config, Path] | None:
    """Of a command line with ``--resume FOLDER``, the configuration saved there and the folder; ``None`` of any other.

    Raises:
        UserError: if there is none, or the command line would change it.
    """
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--quiet", action="store_true")
    given, others = parser.parse_known_args(arguments)
    if given.resume is None:
        return None
    if others:
        raise UserError(f"--resume goes on with what {given.resume} was begun with; leave out {' '.join(others)}")
    if not (saved := given.resume / SAVED).is_file():
        raise UserError(f"{given.resume} holds no {SAVED}; name the folder of a run, such as runs/two_ways/1")
    return replace(parse(["--config", str(saved)], None), quiet=given.quiet), given.resume


def as_yaml(config: Config) -> str:
    """``config`` as a YAML file that :func:`parse` reads back."""
    text: str = yaml.safe_dump({**asdict(config), "output": str(config.output)}, sort_keys=False)
    return text


def _parser(description: str | None) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="A YAML file with any of the fields below.")
    parser.add_class_arguments(Config, skip={"quiet"})
    parser.add_argument("--resume", metavar="FOLDER", help="Go on in the folder of a run that was stopped.")
    parser.add_argument("--quiet", action="store_true", help="Only the verdicts: no progress, no tables.")
    return parser


def _names(group: Any) -> list[str]:
    return [field.name for field in fields(group)]


def _one_sentence(message: str) -> str:
    """What the parser says, in our words where it is about a field's value or name, else on one line."""
    field = re.search(r'Parser key "([\w.]+)"', message)
    value = re.findall(r"(?:Got|Given) value: (.*)", message)
    if field and value and field[1] in ALLOWED:
        return f"{field[1]} is {value[-1]}; allowed is {ALLOWED[field[1]]}"
    unknown = re.search(r"unrecognized arguments: -*([\w.]*)|does not accept option '(\w+)'|Option '(\w+)'", message)
    if unknown:
        name = next(filter(None, unknown.groups()), "")
        near = difflib.get_close_matches(name, [*ALLOWED, *(n.split(".")[-1] for n in ALLOWED)], n=1)
        hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(ALLOWED)}"
        return f"{name or message} is not a field; {hint}"
    if "Unexpected config" in message:
        return "the configuration file holds no fields with values; it needs lines such as 'steps: 60'"
    return " ".join(message.split())


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
