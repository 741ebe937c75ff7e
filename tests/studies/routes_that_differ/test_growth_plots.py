"""The picture, the tables and the files of the routes that differ."""

import json
import re
from dataclasses import replace
from functools import cache

import pytest
from matplotlib.text import Text
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gradparity.studies.routes_that_differ import VARIANTS, Prediction, variant_outcome
from gradparity.studies.routes_that_differ.growth_plots import pictures
from gradparity.studies.routes_that_differ.loops import REFERENCE_LOOP
from gradparity.studies.routes_that_differ.result import prediction_table, variants_result
from gradparity.tensorboard.pages import ANSWER_RUN
from scripts import run

SCRIPT = "routes_that_differ.py"
NAMES = ("summed loss", "reversed order, K = 2", "zeros for None")


@cache
def outcomes():
    return [variant_outcome(variant, steps=4) for variant in VARIANTS if variant.name in NAMES]


def test_every_variant_is_drawn_at_the_height_of_its_figures():
    for figure, field in zip(pictures(outcomes()).values(), ("relative_norm", "median_ulp"), strict=True):
        (axes,) = figure.axes
        for line, found in zip(axes.lines, outcomes(), strict=True):
            assert list(line.get_xdata()) == [1, 2, 3, 4]
            assert list(line.get_ydata()) == [getattr(figures, field) for figures in found.growth]
        assert axes.get_xlabel() == "optimizer step"
        assert [text.get_text() for text in figure.legends[0].get_texts()] == list(NAMES)


@pytest.mark.parametrize("number", [0, 1])
def test_zero_has_a_separate_line_well_below_the_smallest_difference(number):
    figure = list(pictures(outcomes()).values())[number]
    figure.draw_without_rendering()
    (axes,) = figure.axes
    smallest = min(value for line in axes.lines for value in line.get_ydata() if value > 0)
    height = {value: axes.transData.transform((1, value))[1] for value in (0, smallest, 10 * smallest)}
    assert height[smallest] - height[0] > 10, "pixels"
    assert height[10 * smallest] > height[smallest]
    assert axes.get_yticklabels()[0].get_text() == "same bits"
    assert axes.get_yticks()[0] == 0


def test_a_picture_of_nothing_but_zeros_can_be_drawn():
    same = [found for found in outcomes() if found.first is None]
    assert len(same) == 1
    for figure in pictures(same).values():
        figure.draw_without_rendering()


def test_the_pictures_have_white_ground_and_bold_letters():
    for figure in pictures(outcomes()).values():
        assert figure.get_facecolor() == (1, 1, 1, 1)
        figure.draw_without_rendering()
        shown = [text for text in figure.findobj(Text) if text.get_text()]
        assert len(shown) > 10
        assert {text.get_fontweight() for text in shown} == {"bold"}


def test_a_prediction_that_fails_is_marked_as_such():
    console = Console(width=120)
    wrong = replace(VARIANTS[0], predictions=(Prediction(REFERENCE_LOOP), *VARIANTS[0].predictions))
    found = [variant_outcome(wrong, steps=1)]
    with console.capture() as captured:
        console.print(prediction_table(found))
    assert "✗" in captured.get()
    assert "✓" in captured.get()
    assert variants_result(found).sentence.startswith("1 of 2 predictions hold")
    assert "✗ (predicted: nowhere in 1 steps)" in variants_result(found).pages["1 answer"]


def test_the_experiment_shows_and_writes_predictions_and_measurements(tmp_path):
    chosen = [argument for name in NAMES for argument in ("--only", name)]
    done = run(SCRIPT, "--steps", "4", *chosen, "--output", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    tables, whys = done.stdout.split("summed loss: Autograd")
    assert all(len(line) <= 120 for line in tables.splitlines())
    assert len(whys.splitlines()) == len(NAMES) + 3, "a line for each, a blank one, the answer, and where to see it"
    assert (
        "4 of 4 predictions hold bit for bit and to the place; 2 of 3 variants differ from the reference."
        in done.stdout
    )
    assert re.search(r"summed loss +0/2/accumulated +1.weight +\d", done.stdout)
    assert re.search(r"reversed order, K = 2 +nowhere in 4 steps", done.stdout)
    assert re.search(r"zeros for None +2/0/accumulated +dark.weight +None here", done.stdout)
    assert re.search(r"zeros for None +the reference, parameters +2/–/stepped +2/–/stepped +✓", done.stdout)
    assert "Autograd walks the graph" in done.stdout
    assert f"--logdir {tmp_path}/routes/1" in done.stdout

    lines = [json.loads(line) for line in (tmp_path / "routes" / "1" / "routes.jsonl").read_text().splitlines()]
    assert [line["variant"] for line in lines] == list(NAMES)
    assert [len(line["parameters after each step"]) for line in lines] == [4, 4, 4]
    assert lines[0]["first"]["figures"]["max_ulp"] > 0
    assert lines[1]["first"] is None
    assert lines[2]["first"]["kind"] == "presence"
    assert {key: lines[2]["first"][key] for key in ("step", "microbatch", "phase")} == {
        "step": 2,
        "microbatch": 0,
        "phase": "accumulated",
    }

    board = EventAccumulator(str(tmp_path / "routes" / "1" / ANSWER_RUN)).Reload()
    assert [tag.split("/")[0] for tag in board.Tags()["images"]] == ["1 glance", "1 glance"]
    assert board.Tags()["tensors"] == ["1 answer/text_summary"]
    board = EventAccumulator(str(tmp_path / "routes" / "1" / "zeros-for-None")).Reload()
    assert [event.value > 0 for event in board.Scalars("2 parameters/1 relative norm")] == [False, False, True, True]


def test_quiet_prints_the_answer_and_no_run_is_overwritten(tmp_path):
    arguments = ["--steps", "1", "--only", "reversed order, K = 2", "--quiet", "--output", tmp_path]
    told = [run(SCRIPT, *arguments) for _ in range(2)]
    assert [done.returncode for done in told] == [0, 0]
    answer = "1 of 1 predictions hold bit for bit and to the place; 0 of 1 variants differ from the reference.\n"
    assert [done.stdout for done in told] == [answer, answer]
    assert {path.name for path in (tmp_path / "routes").iterdir()} == {"1", "2"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "sumed loss"], "--only is 'sumed loss'; choose from summed loss; "),
        (["--steps", "0"], "--steps is 0"),
        (["--only", "summed loss", "--steps", "1", "--output", __file__], "--output"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words):
    told = run(SCRIPT, *arguments)
    assert (told.returncode, told.stdout) == (2, "")
    assert words in told.stderr
    assert len(told.stderr.splitlines()) == 1
