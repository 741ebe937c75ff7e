"""The frame of experiments: one answer, one sentence for what is wrong, and nothing of a bar where nobody watches it."""

import sys
from argparse import Namespace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from gradparity.errors import UserError
from gradparity.studies import experiment
from gradparity.studies.experiment import Finished
from gradparity.studies.result import Result, say


def told(*, quiet=False, holds=True):
    def found(given, console):
        return Finished(Result(sentence="It is so.", holds=holds, terminal=[Table("a table")]), Path("runs/x"))

    return experiment.run("x", lambda: Namespace(quiet=quiet), found)


@pytest.mark.parametrize("holds", [True, False])
def test_the_exit_code_is_0_if_the_result_holds(holds):
    assert told(holds=holds) == (0 if holds else 1)


def test_the_answer_follows_the_table_and_the_command_to_see_more_follows_the_answer(capsys):
    told()
    *table, answer, see = capsys.readouterr().out.splitlines()
    assert "a table" in table[1]
    assert answer == "It is so."
    assert see.startswith("See it under Text: ")
    assert see.endswith("tensorboard --logdir runs/x --host localhost")


def test_quiet_prints_the_answer_alone(capsys):
    told(quiet=True)
    assert capsys.readouterr() == ("It is so.\n", "")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("--n is 0"), 2, "x: --n is 0"),
        (NotADirectoryError(20, "Not a directory", "/a/b"), 2, "x: /a/b cannot be written (Not a directory); choose"),
        (OSError(28, "No space left on device"), 2, "x: a file cannot be written (No space left on device); choose"),
        (KeyboardInterrupt(), 130, "x: stopped; what was written until now stays"),
    ],
)
def test_an_error_is_one_sentence_on_standard_error(error, code, words, capsys):
    def fails(given, console):
        raise error

    assert experiment.run("x", lambda: Namespace(quiet=False), fails) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(words)
    assert len(err.splitlines()) == 1


def test_an_internal_error_is_raised():
    def fails(given, console):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        experiment.run("x", lambda: Namespace(quiet=False), fails)


@pytest.mark.parametrize(
    ("terminal", "quiet", "shown"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_a_bar_is_shown_on_a_terminal_only(terminal, quiet, shown, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("FORCE_COLOR", "1")  # which makes rich take a pipe for a terminal
    assert experiment.progress(quiet).disable is not shown


def test_a_sentence_wraps_between_words_on_a_terminal_only():
    lines = {}
    for terminal in (True, False):
        console = Console(width=20, force_terminal=terminal, highlight=False)
        with console.capture() as captured:
            say(console, "Of two loops [one] is the reference, bit for bit.")
        lines[terminal] = [line.rstrip() for line in captured.get().splitlines()]
    assert lines[False] == ["Of two loops [one] is the reference, bit for bit."]
    assert lines[True] == ["Of two loops [one]", "is the reference,", "bit for bit."]
