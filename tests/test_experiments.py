"""Every experiment runs, answers in a sentence, and exits with what it found."""

import os
import pty
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SMALL = ["--steps", "4", "--microbatch_size", "4", "--evaluate_every", "2", "--clip.threshold", "0.05"]


def run(script, *arguments, **environment):
    return subprocess.run(
        [sys.executable, EXPERIMENTS / script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "120", **environment},
    )


def test_every_experiment_is_run_by_a_test():
    here = Path(__file__).parent
    tests = "".join(path.read_text() for path in here.rglob("test_*.py"))
    scripts = [path.name for path in EXPERIMENTS.glob("*.py")]
    assert len(scripts) >= 2
    assert all(script in tests for script in scripts)


@pytest.mark.parametrize("script", sorted(path.name for path in EXPERIMENTS.glob("*.py")))
def test_every_experiment_opens_with_its_question(script):
    docstring = (EXPERIMENTS / script).read_text().split('"""')[1]
    assert docstring.splitlines()[0].endswith("?")
    assert len([line for line in docstring.splitlines() if line.strip()]) == 3


def test_two_ways_are_one_training(tmp_path):
    done = run(
        "train_two_ways.py", *SMALL, "--precision", "fp16", "--task", "[digits_mlp,digits_cnn]", "--output", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("Identical, bit for bit: 4 steps") == 2
    assert "2 of 2 trainings are identical both ways." in done.stdout
    assert f"--logdir {tmp_path}/two_ways/1" in done.stdout
    assert "│ ✗" not in done.stdout
    for task in ("digits_mlp", "digits_cnn"):
        assert {p.name for p in (tmp_path / "two_ways" / "1" / task).iterdir()} == {
            "by_backward",
            "by_manual",
            "how_far_apart",
            "differences.jsonl",
            "checkpoint.zip",
        }


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        ("naive", "At step 0, microbatch 0, phase accumulated, position_correction.grad has memory of its own"),
        ("summed-loss", "At step 0, microbatch 2, phase accumulated, the gradient of position differs in its bits."),
        ("clip-before-unscale", "At step 0, phase unscaled, the gradient of position differs in its bits."),
    ],
)
def test_a_wrong_loop_is_told_where_it_parts(candidate, words, tmp_path):
    done = run(
        "train_two_ways.py", *SMALL, "--precision", "fp16", "--task", "transformer", "--candidate", candidate,
        "--output", tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert words in done.stdout
    assert "Not identical" in done.stdout
    assert "0 of 1 trainings are identical both ways." in done.stdout


def test_quiet_is_only_the_verdicts_and_a_pipe_gets_plain_text(tmp_path):
    arguments = ["train_two_ways.py", *SMALL, "--precision", "fp16", "--output", tmp_path]
    quiet = run(*arguments, "--quiet", "--candidate", "clip-before-unscale", FORCE_COLOR="", COLUMNS="400")
    assert quiet.returncode == 1
    first, second, *_, answer, see = quiet.stdout.splitlines()
    assert first.startswith("digits_mlp: Not identical: ")
    assert second == "At step 0, phase unscaled, the gradient of 1.weight differs in its bits."
    assert answer == "0 of 1 trainings are identical both ways."
    assert see.startswith("See it: ")
    told = run(*arguments, COLUMNS="400")
    assert "\x1b" not in told.stdout + quiet.stdout
    assert "\r" not in told.stdout
    assert "━━━━━ " not in told.stdout, "nothing is left of the progress bar"
    assert quiet.stderr == told.stderr == ""


def test_a_terminal_sees_progress_with_an_estimate_and_no_color_is_heard(tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, EXPERIMENTS / "train_two_ways.py", *SMALL, "--output", tmp_path]
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm-256color", "NO_COLOR": "1"}
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment):
        os.close(theirs)
        seen = b"".join(iter(partial(read_or_nothing, ours), b"")).decode()
    os.close(ours)
    assert re.search(r"digits_mlp .* \d+% .*-?\d?:\d\d:\d\d|digits_mlp .* \d+% .*-:--:--", seen)
    assert not re.search("\x1b\\[[0-9;]*(3[0-7]|38|4[0-7]|9[0-7])[;m]", seen), "no color"


def read_or_nothing(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux says so when the other side is closed
        return b""


def test_lightning_does_not_care_for_the_route_and_its_differences_are_named():
    done = run("lightning_two_ways.py", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = {line.split("│")[1].strip(): line.count("identical") for line in done.stdout.splitlines() if "│" in line}
    assert rows == {
        "fp64, K = 1": 4,
        "fp32, K = 3": 4,
        "fp32, K = 3, a partial last window": 0,
        "bf16, K = 3": 4,
        "fp16, K = 3": 2,
        "fp16, K = 3, an overflow": 0,
        "fp16, K = 3, against clip-before-unscale": 2,
    }
    assert done.stdout.strip().endswith("It makes no difference to Lightning which way fills p.grad.")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--steps", "0"], "steps is 0"),
        (["--config", "nowhere.yaml"], "does not exist"),
        (["--device", "cuda"], "no GPU"),
        (["--output", __file__], "--output"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words):
    done = run("train_two_ways.py", *arguments, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
