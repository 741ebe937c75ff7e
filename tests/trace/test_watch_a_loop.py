"""The experiment with two hand-written loops: one is the reference, the other is told what it is."""

import pytest

from gradparity.cli.main import main
from scripts import run


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return run("watch_a_loop.py", "--output", tmp_path_factory.mktemp("runs"))


def test_the_correct_loop_is_identical_and_the_wrong_one_is_located(done):
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    right, wrong = done.stdout.split("The loop called ")[1:]
    assert "Identical, bit for bit: 4 steps" in right
    assert "Not identical" in wrong
    assert "At step 0, microbatch 0, phase forward, the loss is" in wrong


def test_it_gives_a_command_that_shows_the_same(done, capsys):
    (line,) = (line for line in done.stdout.splitlines() if "gradparity diff" in line)
    program, *arguments = line.partition(": ")[2].split()
    assert program == "gradparity"
    assert main(arguments) == 1
    assert "✗ 11/11" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_is_one_sentence():
    done = run("watch_a_loop.py", "--output", __file__)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
