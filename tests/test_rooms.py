"""The rooms of the package have an order, and each imports only those before it."""

import ast
import re
from pathlib import Path

import gradparity

HOUSE = Path(gradparity.__file__).parent
ORDER = [
    "errors", "training", "safe_files", "parity", "faults", "tensorboard", "trace", "processes", "auditing", "check",
    "integrations", "cli", "studies",
]  # fmt: skip


def imported(path):
    """The rooms that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "gradparity":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gradparity."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("gradparity."))


def upward(path, order=ORDER):
    room = path.relative_to(HOUSE).parts[0].removesuffix(".py")
    return [other for other in imported(path) if order.index(other) > order.index(room)]


def test_every_room_is_in_the_order_and_says_what_it_is_for():
    rooms = {
        path.name.removesuffix(".py")
        for path in HOUSE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms == {*ORDER, "__init__", "__main__"}
    for room in ORDER[1:]:
        assert ast.get_docstring(ast.parse((HOUSE / room / "__init__.py").read_text()))


def reading_order(docstring):
    """The modules that a room's docstring names, in the order in which they are to be read."""
    _, _, order = docstring.partition("Read in this order: ")
    return re.findall(r"``([a-z_]+)/?``", order.partition(". ")[0])


def test_what_a_room_says_to_read_is_there():
    orders = {
        path.parent: reading_order(ast.get_docstring(ast.parse(path.read_text())))
        for path in HOUSE.rglob("__init__.py")
    }
    assert sum(map(bool, orders.values())) >= 8
    there = {room: {path.stem for path in room.iterdir()} for room in orders}
    assert {
        str(room): lost
        for room, order in orders.items()
        if (lost := [name for name in order if name not in there[room]])
    } == {}


def test_no_room_imports_one_that_comes_after_it():
    files = [path for path in HOUSE.rglob("*.py") if path.parent != HOUSE]
    assert len(files) > 200
    assert {str(path): found for path in files if (found := upward(path))} == {}


def test_an_import_upwards_would_be_seen():
    assert "parity" in upward(HOUSE / "trace" / "diff.py", order=["errors", "training", "trace", "parity"])
