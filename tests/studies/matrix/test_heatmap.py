"""The heatmap shows every outcome, and the most telling one of each square."""

from rich.console import Console

from gradparity.studies.matrix import heatmap, hparams
from gradparity.studies.matrix.cell import TASK_NAMES, MatrixCell
from gradparity.studies.matrix.result import matrix_result
from gradparity.studies.matrix.run import CellOutcome, CellResult
from gradparity.studies.result import write_result
from gradparity.tensorboard.pages import ANSWER_RUN

RESULTS = [
    CellResult(cell=MatrixCell(task="gru", precision="fp32"), outcome=CellOutcome.IDENTICAL),
    CellResult(cell=MatrixCell(task="gru", precision="fp32", k=4), outcome=CellOutcome.REFUSED, why="no"),
    CellResult(cell=MatrixCell(task="gru", precision="fp16"), outcome=CellOutcome.REFUSED, why="no"),
    CellResult(cell=MatrixCell(task="lstm", precision="fp32"), outcome=CellOutcome.IDENTICAL),
    CellResult(cell=MatrixCell(task="lstm", precision="fp32", k=4), outcome=CellOutcome.DIFFERENT, why="so", max_ulp=7),
    CellResult(cell=MatrixCell(task="lstm", precision="fp16"), outcome=CellOutcome.RAISED, why="oh"),
]


def rows_of(results, width=80):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(heatmap.terminal_heatmap(results))
    cells = [line.strip("│\n").split("│") for line in captured.get().splitlines() if line.startswith("│")]
    return {name.strip(): [mark.strip() for mark in marks] for name, *marks in cells}


def test_each_square_of_the_terminal_shows_its_most_telling_outcome():
    assert rows_of(RESULTS) == {"fp32": ["✓", "✗"], "fp16": ["–", "!"], "K = 3": ["✓", "!"], "K = 4": ["–", "✗"]}


def test_a_square_without_cells_is_empty():
    assert rows_of(RESULTS[1:2] + RESULTS[5:])["K = 4"] == ["–", ""]


def test_one_cell_has_a_row():
    assert rows_of(RESULTS[:1]) == {"fp32": ["✓"]}


def test_all_tasks_fit_into_a_narrow_terminal():
    cells = [MatrixCell(task=task, clip=clip) for task in TASK_NAMES for clip in ("none", "error_if_nonfinite")]
    rows = rows_of([CellResult(cell=cell, outcome=CellOutcome.IDENTICAL) for cell in cells])
    assert rows == {name: ["✓"] * len(TASK_NAMES) for name in ("clip: none", "clip: error_if_nonfinite")}


def test_the_figure_shows_a_symbol_where_not_all_is_identical_on_its_own_ground():
    figure = heatmap.draw_heatmap(RESULTS)
    (axes,) = figure.axes
    squares = {text.get_position(): text.get_text() for text in axes.texts}
    assert (squares[0, 0], squares[1, 1], squares[1, 3]) == ("", "!", "✗")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["gru", "lstm"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fp32", "fp16", "K = 3", "K = 4"]
    assert figure.get_facecolor() == (1, 1, 1, 1)
    colors = axes.images[0].to_rgba(axes.images[0].get_array())
    assert len({tuple(color) for row in colors for color in row}) == len(CellOutcome)


def test_a_glance_shows_how_many_cells_of_each_task_came_out_how():
    figure = heatmap.draw_counts(RESULTS)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["gru", "lstm"]
    widths = [[bar.get_width() for bar in bars] for bars in axes.containers]
    assert dict(zip(CellOutcome, widths, strict=True)) == {
        CellOutcome.DIFFERENT: [0, 1],
        CellOutcome.RAISED: [0, 1],
        CellOutcome.IDENTICAL: [1, 1],
        CellOutcome.REFUSED: [2, 0],
    }
    assert figure.get_suptitle() == "2 of 4 cells are identical both ways"


def test_tensorboard_gets_the_heatmap_and_every_cell(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write_result(matrix_result(RESULTS), tmp_path / "glance")
    hparams.write_hparams(tmp_path / "cells", RESULTS)
    events = EventAccumulator(str(tmp_path / "glance" / ANSWER_RUN)).Reload()
    assert len(events.Tags()["images"]) == 2
    assert {path.name for path in tmp_path.joinpath("cells").iterdir()} == {str(result.cell) for result in RESULTS}
    cell = EventAccumulator(str(tmp_path / "cells" / str(RESULTS[4].cell))).Reload()
    assert round(cell.Scalars("log10 of 1 + ULP")[0].value, 3) == 0.903
    (page,) = events.Tensors("1 answer/text_summary")
    lines = page.tensor_proto.string_val[0].decode().splitlines()
    assert lines[0].startswith("**2 of 4 cells are identical both ways, ")
    assert lines[-3:] == ["* **1 different**: so", "* **1 raised**: oh", "* **2 refused**: no"]


def test_the_heatmap_is_not_among_so_many_runs_that_tensorboard_selects_none(tmp_path):
    write_result(matrix_result(RESULTS), tmp_path)
    assert [path.parent.name for path in tmp_path.rglob("events.*")] == [ANSWER_RUN]


def test_tensorboard_is_spared_thousands_of_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(hparams, "MOST_RUNS", len(RESULTS) - 1)
    hparams.write_hparams(tmp_path / "cells", RESULTS)
    assert not tmp_path.joinpath("cells").exists()
