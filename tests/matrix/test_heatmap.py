"""The heatmap shows every outcome, and the most telling one of each square."""

from rich.console import Console

from gradparity.matrix import board, picture
from gradparity.matrix.cell import TASKS, Cell
from gradparity.matrix.run import Outcome, Result

RESULTS = [
    Result(cell=Cell(task="gru", precision="fp32"), outcome=Outcome.IDENTICAL),
    Result(cell=Cell(task="gru", precision="fp32", k=4), outcome=Outcome.REFUSED, why="no"),
    Result(cell=Cell(task="gru", precision="fp16"), outcome=Outcome.REFUSED, why="no"),
    Result(cell=Cell(task="lstm", precision="fp32"), outcome=Outcome.IDENTICAL),
    Result(cell=Cell(task="lstm", precision="fp32", k=4), outcome=Outcome.DIFFERENT, why="so", max_ulp=7),
    Result(cell=Cell(task="lstm", precision="fp16"), outcome=Outcome.RAISED, why="oh"),
]


def rows_of(results, width=80):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(picture.table(results))
    cells = [line.strip("│\n").split("│") for line in captured.get().splitlines() if line.startswith("│")]
    return {name.strip(): [mark.strip() for mark in marks] for name, *marks in cells}


def test_each_square_of_the_terminal_shows_its_most_telling_outcome():
    assert rows_of(RESULTS) == {"fp32": ["✓", "✗"], "fp16": ["–", "!"], "K = 3": ["✓", "!"], "K = 4": ["–", "✗"]}


def test_a_square_without_cells_is_empty():
    assert rows_of(RESULTS[1:2] + RESULTS[5:])["K = 4"] == ["–", ""]


def test_one_cell_has_a_row():
    assert rows_of(RESULTS[:1]) == {"fp32": ["✓"]}


def test_all_tasks_fit_into_a_narrow_terminal():
    cells = [Cell(task=task, clip=clip) for task in TASKS for clip in ("none", "error_if_nonfinite")]
    rows = rows_of([Result(cell=cell, outcome=Outcome.IDENTICAL) for cell in cells])
    assert rows == {name: ["✓"] * len(TASKS) for name in ("clip: none", "clip: error_if_nonfinite")}


def test_the_figure_shows_symbols_and_counts_on_its_own_ground():
    figure = picture.figure(RESULTS)
    (axes,) = figure.axes
    squares = {text.get_position(): text.get_text() for text in axes.texts}
    assert squares[0, 0] == "✓ 1"
    assert squares[1, 1] == "! 1"
    assert squares[1, 3] == "✗ 1"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["gru", "lstm"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fp32", "fp16", "K = 3", "K = 4"]
    assert figure.get_facecolor() == (1, 1, 1, 1)
    colors = axes.images[0].to_rgba(axes.images[0].get_array())
    assert len({tuple(color) for row in colors for color in row}) == len(Outcome)


def test_tensorboard_gets_the_heatmap_and_every_cell(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board.write(tmp_path, RESULTS)
    events = EventAccumulator(str(tmp_path / "all_cells")).Reload()
    (image,) = events.Images("matrix/outcomes")
    assert image.width > 300
    assert {path.name for path in tmp_path.joinpath("cells").iterdir()} == {str(result.cell) for result in RESULTS}
    cell = EventAccumulator(str(tmp_path / "cells" / str(RESULTS[4].cell))).Reload()
    assert round(cell.Scalars("log10 of 1 + ULP")[0].value, 3) == 0.903
    (page,) = events.Tensors("matrix/how many cells came out how, and why/text_summary")
    lines = page.tensor_proto.string_val[0].decode().splitlines()
    assert lines == ["* **1 different**: so", "* **1 raised**: oh", "* **2 identical**", "* **2 refused**: no"]


def test_tensorboard_is_spared_thousands_of_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(board, "MOST", len(RESULTS) - 1)
    board.write(tmp_path, RESULTS)
    assert not tmp_path.joinpath("cells").exists()
