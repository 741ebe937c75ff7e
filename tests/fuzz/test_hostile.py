"""The check that all fuzzing rests on notices everything that it is there to notice."""

import os
import sys
import time

import pytest

from gradparity.cli.exit_codes import exit_codes
from gradparity.errors import UserError
from hostile import one_sentence


def tells(*lines, code=2):
    for line in lines:
        print(line, file=sys.stderr)
    return code


def waits_for_a_pipe(folder):
    os.mkfifo(folder / "pipe")
    return (folder / "pipe").read_text()


@pytest.mark.parametrize(
    ("call", "noticed"),
    [
        (lambda _: {}["key"], "a traceback: KeyError"),
        (lambda _: tells("one sentence, as long as it should be", "and another"), "and another"),
        (lambda _: tells(code=2), "Told"),
        (lambda _: tells("Traceback (most recent call last):"), "Traceback"),
        (lambda _: tells("a sentence that goes on" * 1000), "not that long"),
        (lambda _: tells(code=3), "code=3"),
        (lambda _: print("\x1b[31m") or 0, "a terminal would obey"),
        (lambda _: print("\ud800") or 0, "UnicodeEncodeError"),
        (lambda _: len(bytearray(2**33)), "a traceback: MemoryError"),
    ],
)
def test_what_misbehaves_is_noticed(call, noticed, tmp_path):
    with pytest.raises(AssertionError, match=noticed):
        one_sentence(lambda: call(tmp_path), gigabytes=1)


@pytest.mark.parametrize("call", [lambda _: time.sleep(1000), lambda _: [0 for _ in iter(int, 1)], waits_for_a_pipe])
def test_what_hangs_is_noticed(call, tmp_path):
    with pytest.raises(AssertionError, match="it hangs"):
        one_sentence(lambda: call(tmp_path), seconds=0.2)


@exit_codes("tried")
def refuses(arguments):
    raise UserError("a sentence\nwith a line break from a path; mend it")


@exit_codes("tried")
def succeeds(arguments):
    return 0


def test_what_behaves_passes():
    assert one_sentence(lambda: succeeds([])).code == 0
    told = one_sentence(lambda: refuses([]))
    assert (told.code, told.err) == (2, "tried: a sentence with a line break from a path; mend it\n")
    assert one_sentence(lambda: sys.exit(0)).code == 0
