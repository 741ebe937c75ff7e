"""No right loop is called wrong, whatever its method, and none computes other bits because it is audited."""

import random
from contextlib import suppress

import methods_in_the_wild
import pytest
import torch
from methods_by_task import TASK_METHODS
from more_methods import MORE_METHODS
from quiet_audited_loops import QUIET_METHODS

import methods
from gradparity.auditing.finding import RuleVerdict
from gradparity.parity.bits import same_bits
from test_rules import BROKEN, audited

METHODS = [*methods.METHODS, *methods_in_the_wild.METHODS, *QUIET_METHODS, *TASK_METHODS]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # torch warns of some of the wrong loops


@pytest.mark.parametrize("loop", [*METHODS, *MORE_METHODS], ids=lambda loop: loop.__name__)
def test_no_right_loop_is_called_wrong(loop):
    found = audited(loop)
    assert [(f.rule.code, f.sentence) for f in found.findings if f.verdict == RuleVerdict.WRONG] == []
    assert found.steps


TOLD = {"clipped_critic": ["GP804"], "idle_optimizer_for_a_schedule": ["GP802", "GP843"]}
"""The right loops of which something is said, which is right in their method."""


@pytest.mark.parametrize("loop", [*METHODS, *MORE_METHODS], ids=lambda loop: loop.__name__)
def test_of_most_right_loops_nothing_is_said_but_what_they_do(loop):
    assert [f.rule.code for f in audited(loop).findings] == TOLD.get(loop.__name__, [])


class Weights:
    """Every parameter that a loop's optimizers step on, after each step."""

    def __init__(self, monkeypatch):
        self.seen = []
        monkeypatch.setattr(torch.optim.SGD, "step", self.after(torch.optim.SGD.step))
        monkeypatch.setattr(torch.optim.Adam, "step", self.after(torch.optim.Adam.step))

    def after(self, step):
        def stepped(optimizer, *args, **kwargs):
            result = step(optimizer, *args, **kwargs)
            self.seen.append([p.detach().clone() for group in optimizer.param_groups for p in group["params"]])
            return result

        return stepped


@pytest.mark.parametrize("loop", [*METHODS, *MORE_METHODS, *BROKEN], ids=lambda loop: loop.__name__)
def test_an_audit_changes_no_bit(loop, monkeypatch):
    weights = Weights(monkeypatch)
    ends = []
    for watched in (False, True):
        torch.manual_seed(1)
        weights.seen = []
        arguments = (False,) if loop in BROKEN else ()
        with suppress(RuntimeError, AssertionError, ValueError):
            audited(loop, *arguments) if watched else loop(*arguments)
        ends.append((weights.seen, torch.get_rng_state(), random.getstate()))
    (alone, drawn, _), (watched, drawn_too, _) = ends
    assert len(alone) == len(watched)
    assert all(same_bits(a, b) for one, two in zip(alone, watched, strict=True) for a, b in zip(one, two, strict=True))
    assert torch.equal(drawn, drawn_too)
