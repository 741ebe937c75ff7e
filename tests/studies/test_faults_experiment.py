"""The experiment on all faults, and what is put to other libraries, where they are installed."""

import json
import runpy
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from gradparity.check.lookup import Finding, Match
from gradparity.faults import FAULTS
from gradparity.faults.all_faults import THEMES
from gradparity.studies.peers import scores
from gradparity.studies.peers.answers import CANNOT, Answers, asked
from gradparity.studies.peers.loop_in_pieces import OUTSIDE, changed
from gradparity.studies.peers.table import each, rows, sentence

SCRIPT = Path(__file__).parents[2] / "experiments" / "faults.py"


def run(*arguments):
    return runpy.run_path(str(SCRIPT))["main"]([*map(str, arguments)])


@pytest.mark.long
def test_the_experiment_shows_how_many_faults_are_detected_and_named(tmp_path, capsys):
    assert run("--only", "clipping,naive", "--output", tmp_path) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "14 of 14 faults diverge, 14 are named, 14 at the documented place." in told
    assert "clipping 12 12 12 12" in told
    assert "so that no check can tell them apart here: clip-after-step, clip-an-exhausted-generator" in told
    assert "tensorboard --logdir" in told
    written = json.loads((tmp_path / "faults" / "1" / "faults.json").read_text())
    assert [one["name"] for one in written["faults"]] == [
        *(f.name for f in THEMES["clipping"]),
        "naive",
        "naive-and-added-out-of-place",
    ]
    assert list((tmp_path / "faults" / "1" / "the_answer").glob("events.out.tfevents.*"))


@pytest.mark.long
def test_faults_of_several_ranks_are_among_them(tmp_path, capsys):
    assert run("--only", "mean-of", "--output", tmp_path) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "several ranks 1 1 1 1" in told
    written = json.loads((tmp_path / "faults" / "1" / "faults.json").read_text())
    assert [(one["theme"], one["name"]) for one in written["faults"]][-1] == ("several ranks", "mean-of-rank-means")


@pytest.mark.long
def test_with_all_there_is_a_row_for_each_fault(tmp_path, capsys):
    assert run("--all", "--only", "detached_graph", "--output", tmp_path) == 0
    told = capsys.readouterr().out
    assert all(fault.name in told for fault in THEMES["detached_graph"])


@pytest.mark.skipif(any(map(find_spec, scores.PEERS.values())), reason="other libraries are installed")
def test_who_is_not_installed_is_told_with_how_to_install_it(tmp_path, capsys):
    assert run("--peers", "--only", "naive", "--output", tmp_path) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "TrainParity and pytest-torch: not installed (pip install 'gradparity[peers]')." in told


def test_a_fault_that_is_not_named_makes_it_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "look_up", lambda *_: Finding(Match.UNKNOWN))
    assert run("--only", "naive", "--output", tmp_path) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--only", "nothing-like-it"],
            "--only is 'nothing-like-it'; choose from loss_normalization, accumulation_windows",
        ),
        (["--output", __file__], "choose a folder with --output"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, capsys):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


def test_a_check_that_fails_has_caught_something_and_who_was_not_asked_has_not():
    answers = asked({"quiet": lambda: None, "loud": lambda: 1 / 0})
    assert (answers.caught, answers.expressed) == (True, True)
    assert (dict(answers.raised), answers.passed) == ({"loud": "ZeroDivisionError: division by zero"}, ("quiet",))
    assert (CANNOT.caught, CANNOT.expressed) == (False, False)


def test_what_a_library_catches_is_counted_of_what_it_can_be_told_of():
    said = {"naive": asked({"a": lambda: 1 / 0}), "summed-loss": asked({"a": lambda: None}), "clip-twice": CANNOT}
    made = [scores.score(FAULTS[name], {"pytest-torch": lambda _, a=a: a}) for name, a in said.items()]
    assert rows({"some": made}, ["pytest-torch", "TrainParity"]) == [
        ["some", "3", "3", "3", "3", "1 of 2", "not installed"]
    ]
    told = sentence(made, {"pytest-torch": Answers({}, ("a",))})
    assert "pytest-torch catches 1 of 1 bugs that it can be told of (0 it cannot), no alarm at the right loop" in told
    assert "cannot be expressed." in each({"some": made})


CAUGHT = {
    "pytest_torch": {"steps-every-microbatch": "accumulation", "clip-before-unscale": "mixed_precision"},
    "trainparity": {"mean-of-microbatch-means": "accumulation", "scheduler-not-restored": "resume"},
}


@pytest.mark.parametrize("module", CAUGHT)
def test_a_peer_raises_no_alarm_at_the_right_loop_and_catches_what_it_is_for(module):
    pytest.importorskip(module, reason="install gradparity[peers] to ask other libraries")
    answers = import_module(f"gradparity.studies.peers.with_{module}").answers
    assert not answers(None).caught
    assert answers(None).passed
    for name, check in CAUGHT[module].items():
        assert check in answers(FAULTS[name]).raised
    (outside,) = {fault.name for fault in FAULTS.values() if changed(fault) <= OUTSIDE} & {"one-epoch-missing"}
    assert not answers(FAULTS[outside]).expressed
