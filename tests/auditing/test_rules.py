"""Each rule finds the loop that breaks it, at the line that breaks it, and says nothing about its repair."""

import inspect

import more_audited_loops
import pytest
import rank_loops
import wild_loops
from methods_by_task import TASK_BROKEN
from more_audited_loops import MORE
from quiet_audited_loops import QUIET

import audited_loops
from gradparity.auditing.report import report
from gradparity.auditing.rules import RULES
from gradparity.auditing.watching.user_lines import raised
from gradparity.auditing.watching.watch import Watch

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns of some of the wrong loops

BROKEN = audited_loops.BROKEN | MORE | QUIET | TASK_BROKEN | wild_loops.BROKEN
LOOPS = [pytest.param(loop, *expected, id=loop.__name__) for loop, expected in BROKEN.items()]


def audited(loop, *arguments):
    watch = Watch(100)
    with watch.watching():
        try:
            loop(*arguments)
        except (RuntimeError, AssertionError, ValueError) as error:  # torch's GradScaler raises two of them
            watch.raised = raised(error)
    assert watch.fault is None
    return report(watch.facts())


@pytest.mark.parametrize(("loop", "code", "verdict"), LOOPS)
def test_a_broken_rule_is_found_and_nothing_else(loop, code, verdict):
    found = audited(loop, False)
    assert [(f.rule.code, str(f.verdict)) for f in found.findings] == [(code, verdict)]
    assert found.findings[0].line.file == inspect.getsourcefile(loop)
    assert found.verdict == verdict


@pytest.mark.parametrize(("loop", "code", "verdict"), LOOPS)
def test_nothing_is_said_about_the_repair(loop, code, verdict):
    found = audited(loop, True)
    assert [(f.rule.code, f.sentence) for f in found.findings] == []
    assert (found.verdict, found.steps > 0) == ("clean", True)
    assert found.does


def test_a_second_division_by_the_scaler_is_no_division_by_the_loop():
    [found] = audited(more_audited_loops.updated_between_two_optimizers, False).findings
    assert "update() ran in between" in found.sentence
    assert "by the loop" not in found.sentence


def test_every_rule_has_a_loop_that_breaks_it():
    assert {code for code, _ in [*BROKEN.values(), *rank_loops.BROKEN.values()]} == {
        code for code in RULES if not code.startswith("GP0")
    }
