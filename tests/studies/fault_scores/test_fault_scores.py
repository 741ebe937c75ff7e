"""The experiment on all faults: how many diverge, are named, and at which place."""

import json
import runpy
from pathlib import Path

import pytest

from gradparity.check.lookup.fault_lookup import Finding, Match
from gradparity.faults.all_faults import THEMES
from gradparity.studies.fault_scores import score

SCRIPT = Path(__file__).parents[3] / "experiments" / "faults.py"


def run(*arguments):
    return runpy.run_path(str(SCRIPT))["main"]([*map(str, arguments)])


@pytest.mark.slow
def test_the_experiment_shows_how_many_faults_are_detected_and_named(tmp_path, capsys):
    assert run("--only", "clipping,naive", "--output", tmp_path) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "13 of 13 faults diverge, 13 are named, 13 at the documented place." in printed
    assert "clipping 12 12 12 12" in printed
    assert "so that no check can distinguish them here: clip-after-step, clip-an-exhausted-generator" in printed
    assert "tensorboard --logdir" in printed
    written = json.loads((tmp_path / "faults" / "1" / "faults.json").read_text())
    assert [one["name"] for one in written["faults"]] == [*(f.name for f in THEMES["clipping"]), "naive"]
    assert list((tmp_path / "faults" / "1" / "the_answer").glob("events.out.tfevents.*"))


@pytest.mark.slow
def test_faults_of_several_ranks_are_among_them(tmp_path, capsys):
    assert run("--only", "mean-of", "--output", tmp_path) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "several ranks 1 1 1 1" in printed
    written = json.loads((tmp_path / "faults" / "1" / "faults.json").read_text())
    assert [(one["theme"], one["name"]) for one in written["faults"]][-1] == ("several ranks", "mean-of-rank-means")


@pytest.mark.slow
def test_with_all_there_is_a_row_for_each_fault(tmp_path, capsys):
    assert run("--all", "--only", "resume", "--output", tmp_path) == 0
    printed = capsys.readouterr().out
    assert all(fault.name in printed for fault in THEMES["resume"])


def test_a_fault_that_is_not_named_makes_it_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(score, "look_up", lambda *_, **__: Finding(Match.UNKNOWN))
    assert run("--only", "naive", "--output", tmp_path) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--only", "nothing-like-it"],
            "--only is 'nothing-like-it'; choose from loss_normalization, loss_targets",
        ),
        (["--only", ""], "--only is ''; choose from loss_normalization, loss_targets"),
        (["--output", __file__], "choose a folder with --output"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, capsys):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1
