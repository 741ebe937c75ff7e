"""Each rule on ranks finds the loop that breaks it, on two ranks, and says nothing about its repair."""

import inspect

import pytest
import rank_loops

from gradparity.auditing.report import report
from gradparity.processes.launch import launch


@pytest.fixture(scope="module")
def accounts():
    return launch(rank_loops.accounts_of_all, 2)


def judged(accounts, loop, right):
    own, *others = (found[loop.__name__, right] for found in accounts)
    return report(own, others=others)


LOOPS = [pytest.param(loop, *expected, id=loop.__name__) for loop, expected in rank_loops.BROKEN.items()]


@pytest.mark.parametrize(("loop", "code", "verdict"), LOOPS)
def test_a_broken_rule_is_found_and_nothing_else(accounts, loop, code, verdict):
    found = judged(accounts, loop, False)
    assert [(f.rule.code, str(f.verdict)) for f in found.findings] == [(code, verdict)]
    lines, start = inspect.getsourcelines(loop)
    assert start <= found.findings[0].line.number < start + len(lines)


@pytest.mark.parametrize("loop", [*rank_loops.BROKEN, *rank_loops.RIGHT], ids=lambda loop: loop.__name__)
def test_nothing_is_said_about_a_right_loop(accounts, loop):
    found = judged(accounts, loop, True)
    assert [(f.rule.code, f.sentence) for f in found.findings] == []
    assert found.steps >= 4
    assert found.does[0].text.startswith("2 ranks train together")
