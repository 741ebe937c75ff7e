"""Docstrings open with what is done, or with what something is: never with a question word."""

import ast
from itertools import pairwise
from pathlib import Path

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
