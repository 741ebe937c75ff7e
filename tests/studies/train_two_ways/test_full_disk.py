"""Whatever writes files says in one sentence which one finds no room, and exits with 2."""

import importlib.util
import multiprocessing
from collections import deque
from pathlib import Path

import pytest

from disk import no_file_longer_than
from gradparity.cli.main import main
from gradparity.errors import UserError
from gradparity.studies.matrix.cell import MatrixCell
from gradparity.studies.matrix.run import run_cell, run_cells

EXPERIMENTS = Path(__file__).parents[3] / "experiments"
SMALL = ["--task", "digits_mlp", "--precision", "fp32", "--k", "1"]


def experiment(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if name == "matrix":
        module.run_cells = lambda cells, *_: map(run_cell, cells)  # here, where the disk is full
    return module.main


@pytest.mark.parametrize(
    ("program", "arguments", "length", "file"),
    [
        ("matrix", SMALL, 100, "cells.jsonl"),
        ("matrix", SMALL, 5_000, "events.out.tfevents"),
        ("routes_that_differ", ["--steps", "1", "--only", "full batch", "--quiet"], 100, "events.out.tfevents"),
        ("watch_a_loop", [], 5_000, "safetensors"),
        ("gradparity claims", ["--only", "vjp"], 100, "events.out.tfevents"),
    ],
)
def test_a_full_disk_is_one_sentence(program, arguments, length, file, tmp_path, capsys):
    run = main if program.startswith("gradparity ") else experiment(program)
    words = program.split()[1:]
    with no_file_longer_than(length):
        assert run([*words, *arguments, "--output", str(tmp_path)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.startswith(f"{program}: {tmp_path}")
    assert file in sentence
    assert " cannot be written (File too large); make room there" in sentence


def test_a_killed_process_of_a_matrix_is_one_sentence():
    results = run_cells(
        [MatrixCell(task="digits_mlp", precision="fp32", k=k) for k in (1, 2, 3, 4, 8) * 40], processes=1
    )
    next(results)
    (process,) = multiprocessing.active_children()
    process.kill()
    with pytest.raises(
        UserError, match="a process was killed, maybe for want of memory; try again with fewer --processes"
    ):
        deque(results)
