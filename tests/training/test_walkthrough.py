"""The walk through the training step shows every line that it has, and names faults that exist."""

import inspect
import re
from pathlib import Path

import gradparity.training
from gradparity.faults import FAULTS
from gradparity.training import train_step

PAGE = (Path(inspect.getfile(gradparity.training)).parent / "README.md").read_text()


def code_of(text):
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "yield"))]


def test_every_line_of_the_step_is_shown_once_in_its_order():
    shown = [line for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) for line in code_of(block)]
    body = inspect.getsource(train_step).split('"""')[2]
    assert shown == [line.split("  # ")[0] for line in code_of(body)]


def test_every_fault_that_is_named_is_in_the_dictionary():
    named = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", PAGE))
    assert len(named) > 30
    assert named | {"naive"} <= FAULTS.keys()


def test_every_file_that_is_linked_is_there():
    links = set(re.findall(r"\]\(([\w.]+)\)", PAGE))
    assert len(links) >= 5
    assert all((Path(inspect.getfile(gradparity.training)).parent / link).exists() for link in links)
