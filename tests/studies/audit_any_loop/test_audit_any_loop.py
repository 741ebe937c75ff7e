"""The experiment with six loops from the wild: each mistake is found with its line, and nothing is said of its repair."""

import json

import pytest

from gradparity.studies.audit_any_loop.outcome import audited_loop
from gradparity.studies.audit_any_loop.result import audits_result
from scripts import run


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return run("audit_any_loop.py", "--output", folder), folder / "audit_any_loop" / "1"


def test_each_mistake_is_found_with_the_users_own_line(done):
    printed, folder = done
    assert (printed.returncode, printed.stderr) == (0, "")
    found = json.loads((folder / "audits.json").read_text())
    assert {name: [(f["code"], f["line"]["source"]) for f in one["wrong"]["findings"]] for name, one in found.items()} == {
        "emptied-inside": [("GP103", "optimizer.zero_grad()")],
        "clipped-too-early": [("GP201", "clip_grad_norm_(model.parameters(), 1.0)")],
        "mean-of-means": [("GP401", "loss.backward()")],
        "short-last-window": [("GP402", "(cross_entropy(model(x), y) / length).backward()")],
        "never-back-to-training": [("GP602", "cross_entropy(model(x), y).backward()")],
        "past-the-scaler": [("GP202", "optimizer.step()")],
    }  # fmt: skip
    text = " ".join(printed.stdout.split())
    assert "audit_any_loop.py:" in text
    assert "gradparity audit train.py" in text


def test_nothing_is_said_about_a_repair(done):
    found = json.loads((done[1] / "audits.json").read_text())
    assert [(one["repaired"]["verdict"], one["repaired"]["findings"]) for one in found.values()] == [("clean", [])] * 6


def test_tensorboard_has_the_picture_and_the_series_of_each(done):
    names = {path.name for path in done[1].iterdir() if path.is_dir()}
    assert names == {"the_answer", *json.loads((done[1] / "audits.json").read_text())}


def test_a_part_of_it_is_chosen_by_name(tmp_path):
    printed = run("audit_any_loop.py", "--only", "short", "--quiet", "--output", tmp_path)
    assert printed.stdout == "1 of 1 mistakes are found, 1 of 1 repairs are clean.\n"


def test_a_mistake_that_is_missed_and_a_repair_that_is_not_clean_show(done):
    def never_trains(repaired):
        """Nothing happens."""

    result = audits_result([audited_loop(never_trains, "GP101")])
    assert not result.holds
    assert result.sentence == "0 of 1 mistakes are found, 0 of 1 repairs are clean."


def test_a_folder_that_cannot_be_written_is_one_sentence():
    printed = run("audit_any_loop.py", "--output", __file__)
    assert (printed.returncode, len(printed.stderr.splitlines())) == (2, 1)
