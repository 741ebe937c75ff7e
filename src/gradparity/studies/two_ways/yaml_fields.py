"""A YAML file of fields, read as what one could type instead: names with values that are text, and nothing else.

So a file makes no objects, names no further file, and has no aliases, with which ten lines become gigabytes.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from gradparity.errors import UserError
from gradparity.files.open_regular import opened

MOST_BYTES = 100_000
"""Of a file of fields."""


class Plain(yaml.BaseLoader):
    """YAML in which everything is text, a list or a mapping, and stands where it is used."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse an alias; all else is as it was."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, *NAME; write out what that stands for")
        return super().compose_node(parent, index)


def fields_in(path: Path) -> list[tuple[str, str]]:
    """The fields in a YAML file and their values as one would type them; those of a group as ``GROUP.FIELD``.

    Raises:
        UserError: if it cannot be read, or holds something else.
    """
    try:
        with opened(path, MOST_BYTES) as file:
            content = yaml.load(file.read(MOST_BYTES), Plain)
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
