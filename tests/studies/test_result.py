"""A result is shown in full: on the terminal, in TensorBoard, and as JSON."""

import json

import pytest
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from disk import no_file_longer_than
from gradparity.errors import DiskError
from gradparity.studies.result import Result, plain_table, show_result, where_to_see, write_result

TABLE = plain_table("a title", "name", "value")
TABLE.add_row("loss", "0.5")
RESULT = Result(
    sentence="It is so.",
    terminal=[TABLE, "a [plain] paragraph", Text("in bold", style="bold")],
    pages={"1 answer": "| a | table |", "2 more": "more"},
    figures={"1 glance/figure": Figure(figsize=(1, 1))},
    curves={"a run": {"distance": {1: 0.5, 3: 0.25}}},
    records={"one.json": {"a": 1}, "many.jsonl": [{"a": 1}, {"a": 2}]},
)


def test_the_terminal_shows_tables_and_paragraphs_in_order(capsys):
    show_result(RESULT, Console(highlight=False))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert [lines[0], lines[-3].split(), *lines[-2:]] == ["a title", ["loss", "0.5"], "a [plain] paragraph", "in bold"]


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def text_of(board, tag):
    (page,) = board.Tensors(f"{tag}/text_summary")
    return page.tensor_proto.string_val[0].decode()


def test_tensorboard_has_pages_figures_and_curves_and_the_answer_comes_first(tmp_path):
    write_result(RESULT, tmp_path)
    board = events(tmp_path / "the_answer")
    assert text_of(board, "1 answer") == "**It is so.**\n\n| a | table |"
    assert text_of(board, "2 more") == "more"
    assert board.Tags()["images"] == ["1 glance/figure"]
    assert [(e.step, e.value) for e in events(tmp_path / "a run").Scalars("distance")] == [(1, 0.5), (3, 0.25)]


def test_the_answer_page_is_written_even_if_nothing_is_added_to_it(tmp_path):
    write_result(Result(sentence="It is so.", pages={"2 more": "more"}), tmp_path, run="part")
    assert text_of(events(tmp_path / "part"), "1 answer").startswith("**It is so.**")


def test_records_are_one_document_or_a_line_for_each(tmp_path):
    write_result(RESULT, tmp_path)
    assert json.loads((tmp_path / "one.json").read_text()) == {"a": 1}
    assert [json.loads(line) for line in (tmp_path / "many.jsonl").read_text().splitlines()] == [{"a": 1}, {"a": 2}]


def test_a_result_that_is_only_a_sentence_writes_nothing(tmp_path):
    write_result(Result(sentence="It is so."), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    with no_file_longer_than(10), pytest.raises(DiskError, match=r"many\.jsonl cannot be written"):
        write_result(Result(sentence="It is so.", records={"many.jsonl": list(range(100))}), tmp_path)


def test_the_command_to_copy_is_never_wrapped(tmp_path):
    console = Console(width=20, force_terminal=True, highlight=False)
    with console.capture() as captured:
        show_result(Result(sentence="", terminal=[where_to_see(tmp_path, "Text")]), console)
    assert len(captured.get().splitlines()) == 1
