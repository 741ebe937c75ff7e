"""A trace grows with tensors and not with their size; steps leave nothing behind in memory."""

import gc
from itertools import islice, repeat

from gradparity.parity.lockstep import lockstep
from gradparity.studies.benchmark.growth import by_steps, lockstep_steps, recorded_steps, traced_bytes
from gradparity.studies.benchmark.timed_models import config, lanes_and_window, many_tensors, wide_mlp
from gradparity.studies.benchmark.watched_steps import LOCKSTEP, RECORD


def lanes_of(task):
    return lanes_and_window(task, ("backward", "manual"), config(microbatch=1))


def trace_of(task):
    (lane, _), window = lanes_of(task)
    return traced_bytes(lane, window)


def test_a_trace_grows_with_the_tensors_and_not_with_their_size():
    small, large = trace_of(wide_mlp(40)), trace_of(wide_mlp(160))
    assert abs(small - large) < 0.02 * small, "norms have a digit more or less"
    few, more = trace_of(many_tensors(10)), trace_of(many_tensors(40))
    assert more > 2 * few


def left_behind(steps):
    """How many objects there are after fifty more steps that were not after the first ten."""
    for _ in islice(steps, 10):
        pass
    gc.collect()
    before = len(gc.get_objects())
    for _ in islice(steps, 50):
        pass
    gc.collect()
    return len(gc.get_objects()) - before


def test_lockstep_leaves_nothing_in_memory():
    (reference, candidate), window = lanes_of(many_tensors(10))
    assert left_behind(lockstep_steps(reference, candidate, window)) < 50


def test_keeping_the_comparisons_is_seen_as_growth():
    (reference, candidate), window = lanes_of(many_tensors(10))
    kept = []
    keeping = (kept.append(found) for found in lockstep(reference, candidate, repeat(window)))
    assert left_behind(keeping) >= 50


def test_a_recording_leaves_nothing_in_memory(tmp_path):
    (lane, _), window = lanes_of(many_tensors(10))
    assert left_behind(recorded_steps(lane, window, tmp_path / "trace")) < 50


def test_a_long_training_is_measured_at_its_marks():
    for way in (LOCKSTEP, RECORD):
        found = by_steps(way, (2, 5))
        assert [(one.way, one.steps) for one in found] == [(way, 2), (way, 5)]
        assert all(one.milliseconds > 0 < one.megabytes for one in found)
