"""Whatever writes files says in one sentence which one finds no room, and exits with 2."""

import importlib.util
from pathlib import Path

import pytest

from disk import no_file_longer_than
from gradparity.main import main

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SMALL = ["--task", "digits_mlp", "--precision", "fp32", "--k", "1", "--processes", "1"]


def experiment(name):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.mark.parametrize(
    ("program", "arguments", "length", "file"),
    [
        ("matrix", SMALL, 100, "cells.jsonl"),
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
