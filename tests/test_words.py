"""Docstrings open with what is done, or with what something is, and every name in them is there."""

import ast
import re
from itertools import pairwise
from pathlib import Path
from pydoc import locate

import gradparity

HOUSE = Path(gradparity.__file__).parent
QUESTIONS = {"What", "Who", "Whom", "Whose", "Whether", "How", "Where", "Which", "When", "Why", "That"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def headless(source):
    """The docstrings of ``source`` that open with a question word."""
    tree = ast.parse(source)
    found = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
    # A string below an attribute is its docstring.
    bodies = (getattr(node, "body", None) for node in ast.walk(tree))
    for body in (body for body in bodies if isinstance(body, list)):
        found += [
            after.value.value
            for before, after in pairwise(body)
            if isinstance(before, ast.Assign | ast.AnnAssign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ]
    return [text for text in found if text and text.split(maxsplit=1)[0].rstrip(",") in QUESTIONS]


def test_no_docstring_opens_with_a_question_word():
    assert {str(path): found for path in HOUSE.rglob("*.py") if (found := headless(path.read_text()))} == {}


def test_one_that_does_would_be_seen():
    assert headless('def f():\n    """Whether it is."""\n') == ["Whether it is."]
    assert headless('x = 1\n"""How many there are."""\n') == ["How many there are."]
    assert headless('x = 1\n"""The number of them."""\n') == []


def unnamed(folder, doc):
    """The modules in ``folder`` that the reading order in ``doc`` leaves out, and the names in it of modules gone."""
    named = set(re.findall(r"``([a-z_0-9]+)``", doc))
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    folders = {path.name for path in folder.iterdir() if path.is_dir()}
    return sorted(files - named), sorted(name for name in named if "_" in name and name not in files | folders)


def test_a_reading_order_names_every_file_and_no_other():
    orders = {path.parent: ast.get_docstring(ast.parse(path.read_text())) or "" for path in HOUSE.rglob("__init__.py")}
    orders = {folder: doc for folder, doc in orders.items() if "Read in this order" in doc}
    wrong = {str(folder): found for folder, doc in orders.items() if any(found := unnamed(folder, doc))}
    wrong.pop(str(HOUSE / "studies" / "frameworks"))  # "a file for each framework"
    assert wrong == {}


def test_one_that_leaves_out_a_file_would_be_seen(tmp_path):
    (tmp_path / "first.py").touch()
    (tmp_path / "second.py").touch()
    assert unnamed(tmp_path, "Read in this order: ``first`` (a), ``long_gone`` (b).") == (["second"], ["long_gone"])


def broken(text):
    """The cross-references of a file that lead nowhere: neither to a full name nor to a definition in the file."""
    reference = r":(?:mod|func|class|data|meth):`~?([^`]+)`"
    names, others = re.findall(reference, text), set(re.findall(r"\w+", re.sub(reference, "", text)))
    local = {name for name in names if not name.startswith("gradparity.") and others.issuperset(name.split("."))}
    return [name for name in names if name not in local and locate(name) is None]


def test_a_cross_reference_leads_somewhere():
    assert {str(path): found for path in HOUSE.rglob("*.py") if (found := broken(path.read_text()))} == {}


def test_one_that_leads_nowhere_would_be_seen():
    text = "def here(): ...\n# :func:`here`, :mod:`gradparity.training`, :mod:`refused`, :func:`gradparity.training.gone`\n"
    assert broken(text) == ["refused", "gradparity.training.gone"]
