"""The experiment on the cost of recording runs and answers; its figures are its own affair."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "experiments" / "recording_cost.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip


def test_it_answers_in_a_sentence():
    done = run("--rounds", "2", "--width", "16", "--layers", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Recording takes" in done.stdout
    assert "DebugMode.log_tensor_hashes" in done.stdout


def test_bad_input_has_exit_code_2():
    done = run("--width", "12")
    assert done.returncode == 2
    assert done.stderr == "recording_cost: --width is 12; allowed are multiples of 8\n"
