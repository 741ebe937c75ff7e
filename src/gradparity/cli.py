"""From a command line to a :class:`Config`; what is wrong with one is told in one sentence."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from gradparity.config import Config
from gradparity.device import require
from gradparity.errors import UserError


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
    require(config.device)
    return config


def as_yaml(config: Config) -> str:
    """``config`` as a YAML file that :func:`parse` reads back."""
    text: str = yaml.safe_dump({**asdict(config), "output": str(config.output)}, sort_keys=False)
    return text


def _parser(description: str | None) -> ArgumentParser:
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="A YAML file with any of the fields below.")
    parser.add_class_arguments(Config, skip={"quiet"})
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
