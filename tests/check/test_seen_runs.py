"""Hashes of runs tell a loop from a run at the first different bit, and say when they know too little."""

from dataclasses import replace

import pytest

from gradparity.check.lookup.seen_runs import HASH_BYTES, SeenRun, hash_of, name_of, seen_run
from gradparity.check.running.loop_end import EndKind, LoopEnd
from gradparity.faults import FAULTS
from stressed import known

END, RAISED = LoopEnd(), LoopEnd(EndKind.RAISED, "RuntimeError", "no")


def run(text, end=END):
    """A run whose observations are letters."""
    return SeenRun(b"".join(letter.encode() * HASH_BYTES for letter in text), end)


@pytest.mark.parametrize(
    ("seen", "loop", "shared", "same", "differing"),
    [
        (run("abc"), run("abc"), 3, True, None),
        (run("abd"), run("abc"), 2, False, "d"),
        (run("abd", None), run("abc"), 2, False, "d"),
        (run("ab"), run("abc"), 2, False, None),
        (run("abcd"), run("abc"), 3, False, "d"),
        (run("abcd", None), run("abc"), 3, False, "d"),
        (run("abc", RAISED), run("abc"), 3, False, None),
        (run("abc", RAISED), run("abc", RAISED), 3, True, None),
        (run(""), run("abc"), 0, False, None),
    ],
)
def test_a_run_agrees_with_a_loop_up_to_the_first_difference(seen, loop, shared, same, differing):
    assert seen.agreement(loop) == (shared, same, differing.encode() * HASH_BYTES if differing else None)


@pytest.mark.parametrize("text", ["", "ab", "abc"])
def test_a_run_that_was_stopped_before_it_differs_says_nothing(text):
    assert run(text, None).agreement(run("abc")) is None


def test_a_different_bit_or_place_is_a_different_hash():
    one, *others = known(None).observations
    assert hash_of(one) == hash_of(known(None).observations[0])
    assert len({hash_of(each) for each in [one, *others]}) == len({one, *others})
    part, name, value = next(iter(one.content))
    assert hash_of(one._replace(content=one.content - {(part, name, value)})) != hash_of(one)
    assert hash_of(one._replace(place=others[0].place)) != hash_of(one)


def test_the_hashes_of_a_run_tell_it_from_all_others_as_its_observations_do():
    names = [None, *list(FAULTS)[::20]]
    for name in names:
        for other in names:
            same = known(name) == known(other)
            assert seen_run(known(name)).agreement(seen_run(known(other))).same == same


def test_the_name_of_faults_is_what_they_change_in_any_order():
    one, other = FAULTS["clip-before-unscale"], FAULTS["stepped-twice"]
    assert name_of([one, other]) == name_of([other, one]) != name_of([one])
    assert name_of([replace(one, name="another name", symptom="none")]) == name_of([one])
    ((function, patch),) = one.changes.items()
    assert name_of([replace(one, changes={function: patch + "\n"})]) != name_of([one]), "its source has changed"
    assert name_of([replace(one, changes={print: patch})]) != name_of([one])
