"""Right loops of five frameworks are clean, and the wrong ones are found at the user's line."""

import inspect
import sys

import pytest

import framework_loops
from framework_loops import FRAMEWORKS, Classifier, TwoPlayers, fit
from gradparity.auditing.report import report
from gradparity.auditing.watching.watch import Watch

NEEDS = {
    framework_loops.accelerate: "accelerate",
    framework_loops.transformers_trainer: "transformers",
    framework_loops.ignite: "ignite",
}

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of the frameworks
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(autouse=True)
def _accelerate_forgets():
    """Accelerate keeps the precision and the windows of the first Accelerator for the whole process."""
    yield
    state = sys.modules.get("accelerate.state")
    if state is not None:
        state.AcceleratorState._reset_state(True)
        state.GradientState._reset_state()


def audited(loop, *arguments, **keywords):
    if loop in NEEDS:
        pytest.importorskip(NEEDS[loop])
    watch = Watch(100)
    with watch.watching():
        loop(*arguments, **keywords)
    assert watch.fault is None
    return report(watch.facts())


def names(loops):
    return [pytest.param(loop, *expected, id=loop.__name__) for loop, expected in loops.items()]


@pytest.mark.parametrize("loop", FRAMEWORKS, ids=lambda loop: loop.__name__)
def test_nothing_is_said_about_a_right_loop(loop):
    found = audited(loop, True)
    assert [(f.rule.code, f.sentence) for f in found.findings] == []
    assert found.steps >= 6


@pytest.mark.parametrize(("loop", "code", "verdict"), names(FRAMEWORKS))
def test_a_wrong_loop_is_found_at_the_users_line(loop, code, verdict):
    found = audited(loop, False)
    assert [(f.rule.code, str(f.verdict)) for f in found.findings] == [(code, verdict)]
    assert found.findings[0].line.file == inspect.getsourcefile(loop)


def test_lightning_divides_a_short_window_by_the_full_length_and_is_told():
    found = audited(fit, Classifier(), accumulate_grad_batches=3)
    assert [f.rule.code for f in found.findings] == ["GP402"]
    assert found.findings[0].line.source.startswith("made.fit(")


def test_two_optimizers_by_hand_are_clean():
    found = audited(fit, TwoPlayers())
    assert [(f.rule.code, f.sentence) for f in found.findings] == []
    assert found.steps == 2 * 2 * 11
