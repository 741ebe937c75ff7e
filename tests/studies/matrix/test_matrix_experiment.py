"""experiments/matrix.py: slices, exit codes, files, and one sentence for bad input."""

import json

import pytest
import torch

from scripts import run


def test_a_slice_is_run_drawn_and_written(tmp_path):
    done = run(
        "matrix.py", "--task", "additive,reentrant,sparse", "--precision", "fp16", "--k", "all", "--processes", "2",
        "--output", tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "10 of 10 cells are identical both ways" in done.stdout
    assert "5 more are refused" in done.stdout
    assert "use_reentrant=True" in done.stdout
    assert "✗" not in done.stdout.replace("✗ different", "")
    assert f"--logdir {tmp_path}/matrix/1/cells --host localhost\n" in done.stdout
    assert f"--logdir {tmp_path}/matrix/1/glance" in done.stdout
    lines = [json.loads(line) for line in (tmp_path / "matrix" / "1" / "cells.jsonl").read_text().splitlines()]
    assert len(lines) == 15
    assert {(line["task"], line["outcome"]) for line in lines} == {
        ("additive", "identical"),
        ("sparse", "identical"),
        ("reentrant", "refused"),
    }
    assert {line["k"] for line in lines} == {1, 2, 3, 4, 8}


def test_a_wrong_loop_makes_it_fail(tmp_path):
    done = run(
        "matrix.py", "--task", "additive", "--candidate", "naive", "--processes", "1", "--output", tmp_path
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
    assert "0 of 1 cells are identical both ways" in done.stdout
    assert "At step 0, microbatch 0, phase accumulated" in done.stdout


@pytest.mark.cuda
def test_a_slice_on_a_gpu(tmp_path):
    done = run(
        "matrix.py", "--device", "cuda", "--task", "digits_mlp,digits_cnn", "--precision", "all", "--processes", "1",
        "--output", tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "8 of 8 cells are identical both ways" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "foo"], "--task is 'foo'; choose from all, digits_mlp,"),
        (["--k", "5"], "--k is '5'; choose from all, 1, 2, 3, 4, 8"),
        (["--processes", "0"], "--processes is 0; allowed is 1 to 256"),
        (["--full", "--optimizer", "LBFGS", "--k", "8", "--schedule", "plateau"], "--full holds no such cell"),
        (["--k", "3", "--output", __file__], "--output"),
        (["--device", "cuda"], "matrix: device is cuda, but torch finds no GPU here; use --device cpu"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = run("matrix.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
