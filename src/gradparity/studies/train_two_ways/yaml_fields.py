"""Fields from a YAML file, read as if typed on the command line: names with values that are text, nothing else.

So a file creates no objects and names no other file. It has no aliases, with which ten lines can expand to gigabytes.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gradparity.errors import UserError
from gradparity.safe_files.open_regular import open_regular

_MOST_BYTES = 100_000
"""The largest size of a file of fields."""


class Plain(yaml.BaseLoader):
    """A YAML loader in which everything is text, a list or a mapping, without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse an alias; compose any other node as usual."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, *NAME; write out what that stands for")
        return super().compose_node(parent, index)


def fields_in(path: Path) -> list[tuple[str, str]]:
    """Return the fields in a YAML file with their values as typed; those of a group are named ``GROUP.FIELD``.

    Raises:
        UserError: if the file cannot be read, or holds something else.
    """
    try:
        with open_regular(path, _MOST_BYTES) as file:
            content = yaml.load(file.read(_MOST_BYTES), Plain)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a YAML file with --config") from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise UserError(f"{path} is not YAML that can be used ({error}); write lines such as 'steps: 60'") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds no fields with values; it needs lines such as 'steps: 60'")
    return list(_typed(content))


def _typed(content: Mapping[Any, Any], group: str = "") -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        match value:
            case str():
                yield f"{group}{name}", value
            case list() if all(isinstance(item, str) for item in value):
                yield f"{group}{name}", json.dumps(value)
            case dict() if value and not group:
                yield from _typed(value, f"{name}.")
            case _:
                raise UserError(f"{group}{name} holds too many brackets; it takes a value, or a list of values")
