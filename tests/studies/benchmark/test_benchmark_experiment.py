"""experiments/benchmark.py answers each of its parts in a sentence; its figures are its own affair."""

import json
import runpy
from functools import partial
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.utils.tensorboard._utils import figure_to_image

from gradparity.studies.benchmark import gpu, growth, ranks, routes, throughput, watching_cost
from gradparity.studies.benchmark.all_parts import PARTS
from gradparity.studies.benchmark.timed_models import transformer, wide_mlp
from gradparity.studies.result import show_result

main = runpy.run_path(str(Path(__file__).parents[3] / "experiments" / "benchmark.py"))["main"]
ROWS = {"routes": 1, "watching": 11, "throughput": 7, "growth": 8, "ranks": 2, "gpu": 10}


@pytest.fixture
def tiny(monkeypatch):
    """All parts on models of no size."""
    monkeypatch.setattr(watching_cost, "transformer", partial(transformer, 16, 1))
    monkeypatch.setattr(watching_cost, "small_transformer", partial(transformer, 16, 1))
    monkeypatch.setattr(routes, "MODELS", {"MLP": (partial(wide_mlp, 16), 2)})
    monkeypatch.setattr(routes, "CASES", [("MLP", "fp32", 2)])
    monkeypatch.setattr(throughput, "MEGABYTES", 1)
    monkeypatch.setattr(gpu, "DEVICE", "cpu")
    monkeypatch.setattr(gpu, "SIZE", (16, 1))
    monkeypatch.setattr(gpu, "SEQUENCES", 2)
    monkeypatch.setattr(growth, "WIDTHS", (4, 8, 16))
    monkeypatch.setattr(growth, "TENSOR_COUNTS", (2, 4, 8))
    monkeypatch.setattr(growth, "STEP_COUNTS", (1, 3, 4))
    monkeypatch.setattr(ranks, "on_ranks", partial(ranks.on_ranks, width=16, layers=1))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", PARTS)
def test_every_part_has_tables_a_reason_a_sentence_a_picture_and_figures(name):
    ticks = {}

    def bar(what, total):
        ticks[what] = [total, 0]
        return lambda: ticks[what].__setitem__(1, ticks[what][1] + 1)

    found = PARTS[name](False, 2, bar)
    assert [total for total, _ in ticks.values()] == [done for _, done in ticks.values()], "the bar comes to its end"
    assert found.sentence.endswith(".")
    assert any(letter.isdigit() for letter in found.sentence)
    *tables, why = found.terminal
    assert why.endswith((".\n", ")\n"))
    assert sum(table.row_count for table in tables) >= ROWS[name]
    assert len(json.dumps(found.records[f"{name}.jsonl"])) > 50
    with Console(record=True, width=150) as console:
        show_result(found, console)
    assert found.figures
    for figure in found.figures.values():
        drawn = figure_to_image(figure).transpose(1, 2, 0)
        assert (drawn[0, 0] == 255).all(), "a white ground, in dark surroundings too"
        assert (drawn < 128).any()


@pytest.mark.usefixtures("tiny")
def test_it_answers_in_a_sentence_and_keeps_picture_and_figures(tmp_path, capsys):
    assert main(["--only", "throughput", "--rounds", "2", "--quiet", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    (answer,) = said.out.splitlines()
    assert answer.startswith("Bits are compared at ")
    assert {path.name for path in (tmp_path / "benchmark" / "1").iterdir()} == {
        "throughput",
        "throughput.jsonl",
        "throughput.png",
    }


@pytest.mark.usefixtures("tiny")
def test_it_prints_the_reason(tmp_path, capsys):
    assert main(["--only", "watching", "--rounds", "2", "--output", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert watching_cost._WHY in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "1"], "--rounds is 1; allowed is 2 to"),
        (["--only", "speed"], "--only is 'speed'; choose from routes, watching"),
        pytest.param(
            ["--only", "gpu"],
            "the part gpu measures on a GPU, and torch finds none here; leave it out of --only",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (["--output", __file__], "--output"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, capsys):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert len(said.err.splitlines()) == 1
