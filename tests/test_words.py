"""Docstrings open with what is done, or with what something is: never with a question word."""

import ast
from pathlib import Path

import gradparity

HOUSE = Path(gradparity.__file__).parent
QUESTIONS = {"What", "Who", "Whom", "Whose", "Whether", "How", "Where", "Which", "When", "Why", "That"}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def headless(source):
    """The docstrings of ``source`` that open with a question word."""
    found = (ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED))
    return [text for text in found if text and text.split(maxsplit=1)[0].rstrip(",") in QUESTIONS]


def test_no_docstring_opens_with_a_question_word():
    assert {str(path): found for path in HOUSE.rglob("*.py") if (found := headless(path.read_text()))} == {}


def test_one_that_does_would_be_seen():
    assert headless('def f():\n    """Whether it is."""\n') == ["Whether it is."]
