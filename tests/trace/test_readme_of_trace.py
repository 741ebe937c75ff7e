"""The example in the room's README runs, and its loop is the reference, bit for bit; a change to it is seen."""

import re
from pathlib import Path

import gradparity.trace
from gradparity.cli.main import main

README = Path(gradparity.trace.__file__).parent / "README.md"


def example():
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "def reference" in block]
    return block


def test_the_reference_on_a_model_of_ones_own_is_the_loop_beside_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(example(), {})
    assert main(["diff", "traces/reference", "traces/mine"]) == 0
    headline = capsys.readouterr().out.splitlines()[0]
    assert f"\n{headline}\n" in README.read_text()


def test_a_mistake_in_it_would_be_seen(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(example().replace("            optimizer.zero_grad()\n", ""), {})
    assert main(["diff", "traces/reference", "traces/mine"]) == 1
