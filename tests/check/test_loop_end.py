"""The kind of a loop's end and the type of its exception decide, never the words of a message."""

from dataclasses import replace

import pytest

from gradparity.check.lookup.fault_lookup import look_up
from gradparity.check.running.loop_end import EndKind, LoopEnd, end_by
from gradparity.check.running.observe import observe, observe_reference
from gradparity.faults import FAULTS, stress_scenario
from gradparity.processes.user_frames import Frame
from stressed import known, see

ENDLESS = str(LoopEnd(EndKind.ENDLESS))


def end_of(loop, go_on=lambda records, observations: True):
    return observe(loop, stress_scenario.build, "fp16", go_on).end


def forwards_for_ever(model, batches, loss, **_):
    while True:
        loss(model, batches[0]).backward()


def raises(error):
    def loop(**_):
        raise error

    return loop


def test_a_loop_that_returns_is_finished():
    assert end_of(stress_scenario.reference) == LoopEnd()
    assert LoopEnd().finished
    assert str(LoopEnd()) == ""


@pytest.mark.parametrize(
    ("loop", "end"),
    [
        (raises(ValueError("no data\nin two lines")), LoopEnd(EndKind.RAISED, "ValueError", "no data")),
        (raises(SystemExit()), LoopEnd(EndKind.EXITED, "SystemExit")),
        (raises(RuntimeError("SystemExit: 1")), LoopEnd(EndKind.RAISED, "RuntimeError", "SystemExit: 1")),
        (raises(RuntimeError(ENDLESS)), LoopEnd(EndKind.RAISED, "RuntimeError", ENDLESS)),
        (forwards_for_ever, LoopEnd(EndKind.ENDLESS)),
    ],
)
def test_each_other_end_has_its_kind_whatever_its_message_says(loop, end):
    assert end_of(loop) == end


def test_a_loop_of_which_enough_is_observed_is_stopped():
    assert end_of(stress_scenario.reference, lambda *_: False).kind == EndKind.STOPPED


def test_the_line_is_kept_and_does_not_make_two_ends_different():
    with pytest.raises(ValueError, match="no data") as raised:
        raises(ValueError("no data"))()
    end = end_by(raised.value)
    assert str(end.frame).startswith("test_loop_end.py, line ")
    assert end == LoopEnd(EndKind.RAISED, "ValueError", "no data", Frame("other.py", 1, "train"))
    assert end != LoopEnd(EndKind.RAISED, "ValueError", "no batches")


def test_no_pairs_are_tried_for_an_endless_loop(monkeypatch):
    few = {name: FAULTS[name] for name in ("naive", "clip-twice", "clip-before-unscale")}
    stopped = observe_reference([FAULTS["clip-before-unscale"]], "fp16", known(None).observations)
    endless = replace(stopped, end=LoopEnd(EndKind.ENDLESS))
    finished = replace(stopped, end=LoopEnd())
    assert look_up(endless, known(None), see, known=few).tried == len(few)
    assert look_up(finished, known(None), see, known=few).tried > len(few)
