"""`gradparity.record` and `assert_parity` around the bad loops: however a loop ends, nothing of the recorder stays.

All run in one fork of this process, because many of them leave things behind.
"""

from functools import partial

import gradparity
import loops
from bad_loops import FAULTY, RAISING, RIGHT, TRAINING_NOTHING, loop_named
from gradparity.check.running.global_state import GlobalState
from gradparity.check.running.user_loop import ARGUMENTS, call_by_name
from gradparity.faults import stress_scenario
from gradparity.processes.sandbox import run_in_subprocess
from gradparity.trace.trace_file import read
from left import of_a_recorder

NAMES = sorted(
    {*RAISING, *TRAINING_NOTHING, *FAULTY, *RIGHT, "leaves_a_thread_that_waits", "leaves_a_timer"}
    - {"compiles", "swallows_everything_once", "talks_a_lot"}  # slow, and they show nothing new
)


def by_record(loop, folder):
    cast = stress_scenario.build("fp16")
    with gradparity.record(cast.model, cast.optimizer, folder, scaler=cast.scaler, scheduler=cast.scheduler):
        assert of_a_recorder(cast.model, cast.optimizer, cast.scaler, cast.scheduler)
        loop(**vars(cast))


def by_assert_parity(loop, folder):
    def make():
        return tuple(vars(stress_scenario.build("fp16")).values())

    def candidate(*given):
        loop(**dict(zip(ARGUMENTS, given, strict=True)))

    gradparity.assert_parity(loops.example, candidate, make, folder=folder, full=False)


def after_each(watch_it, folder, limit):
    """Return, by loop, its end and the parts of a recorder that are left."""
    before, found = GlobalState.now(), {}
    for name in NAMES:
        cast = stress_scenario.build("fp16")
        end = "returned"
        with limit.on(name):
            try:
                watch_it(call_by_name(loop_named(name), name), folder / name)
            except BaseException as error:
                end = type(error).__name__
        found[name] = end, of_a_recorder(cast.model, cast.optimizer, cast.scaler, cast.scheduler)
        before.restore()  # only now, since it would also restore what a recorder left
    return found


def test_no_recorded_loop_leaves_anything_of_the_recorder(tmp_path):
    found = run_in_subprocess(partial(after_each, by_record, tmp_path), 60)
    assert len(found) > 50
    assert {name: left for name, (_, left) in found.items() if left} == {}
    ends = {end for end, _ in found.values()}
    assert {"returned", "Rude", "KeyboardInterrupt", "SystemExit", "RecursionError", "MemoryError"} <= ends
    assert not read(tmp_path / "raises_at_once").complete
    assert read(tmp_path / "keeps_an_average").complete


def test_no_loop_under_assert_parity_leaves_anything_of_the_recorder(tmp_path, monkeypatch):
    some = ["keeps_an_average", "leaves_hooks", "does_nothing", "builds_its_own_optimizer", "loses_its_numbers"]
    some += [
        "raises_a_base_exception",
        "leaves_float64",
        "trains_a_copy",
        "interrupts_itself",
        "leaves_a_patched_method",
    ]
    monkeypatch.setitem(globals(), "NAMES", some)
    found = run_in_subprocess(partial(after_each, by_assert_parity, tmp_path), 60)
    assert {name: left for name, (_, left) in found.items() if left} == {}
    ends = {name: end for name, (end, _) in found.items()}
    assert ends["keeps_an_average"] == ends["leaves_hooks"] == "returned"
    assert ends["does_nothing"] == ends["builds_its_own_optimizer"] == ends["loses_its_numbers"] == "AssertionError"
    assert ends["raises_a_base_exception"] == "Rude"


def test_a_recorder_left_in_place_is_found(tmp_path, monkeypatch):
    recordings = []

    def begin(loop, folder):
        cast = stress_scenario.build("fp16")
        recordings.append(gradparity.record(cast.model, cast.optimizer, folder))
        recordings[-1].__enter__()

    monkeypatch.setitem(globals(), "NAMES", ["does_nothing"])
    found = run_in_subprocess(partial(after_each, begin, tmp_path), 60)
    assert ("torch.amp.grad_scaler.GradScaler", "step") in found["does_nothing"][1]
