"""``gradparity.audit`` in a program: as a block, between two calls, in a test; and a fault of ours ends no training."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

import gradparity
from audited_loops import X, clipped_scaled, loss_of, never_zeroed, small
from gradparity.auditing.events import Backward, StepMade, ZeroGrad
from gradparity.auditing.watching.function_watchers import LoopWatchers
from gradparity.auditing.watching.scaler_watchers import ScalerWatchers
from gradparity.auditing.watching.schedule_watchers import ScheduleWatchers
from gradparity.auditing.watching.watch import Watch
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer

pytest_plugins = ["pytester"]


def test_a_block_has_a_report():
    with gradparity.audit() as audit:
        never_zeroed(False)
    assert audit.report.wrong
    assert [f.rule.code for f in audit.report.findings] == ["GP101"]


def test_what_was_built_before_is_watched_with_its_names():
    model, optimizer = small()
    with gradparity.audit(model, optimizer) as audit:
        for _ in range(3):
            loss_of(model).backward()
            optimizer.step()
    assert audit.report.wrong
    assert audit.report.steps == 3


def test_between_two_calls_the_report_is_there_at_any_time():
    audit = gradparity.audit().start()
    never_zeroed(True)
    assert audit.report.verdict == "clean"
    never_zeroed(False)
    assert audit.stop().wrong
    assert audit.stop() is audit.report
    never_zeroed(False)
    assert audit.report.steps == 12


def test_an_exception_of_the_loop_passes_on_and_is_explained():
    audit = gradparity.audit()
    with pytest.raises(RuntimeError, match="does not require grad"), audit:
        torch.ones(()).backward()
    assert [f.rule.code for f in audit.report.findings] == ["GP910"]


def test_afterwards_nothing_is_left():
    before = (torch.optim.Optimizer.__init__, torch.optim.Optimizer.zero_grad, nn.Module.train, nn.Module.zero_grad)
    with gradparity.audit():
        never_zeroed(True)
    after = (torch.optim.Optimizer.__init__, torch.optim.Optimizer.zero_grad, nn.Module.train, nn.Module.zero_grad)
    assert before == after


WATCHERS = [
    pytest.param(kind, name, id=f"{kind.__name__}.{name}")
    for kind in (LoopWatchers, ScalerWatchers, ScheduleWatchers)
    for name in vars(kind)
    if name.startswith(("_", "step_")) and not name.startswith("__")
]


def everything(watch):
    with watch.watching():
        clipped_scaled(True)
        model = nn.Linear(4, 1).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        model(X).sum().backward()
        optimizer.step()
        scheduler.step()
        model.load_state_dict(model.state_dict())
        optimizer.load_state_dict(optimizer.state_dict())
        torch.utils.swap_tensors(torch.zeros(2), torch.ones(2))


@pytest.mark.parametrize(("kind", "name"), WATCHERS)
def test_an_error_of_ours_ends_the_audit_and_not_the_training(kind, name, monkeypatch):
    def broken(self, *arguments):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(kind, name, broken)
    watch = Watch()
    with pytest.warns(UserWarning, match="the audit ends here, the training goes on"):
        everything(watch)
    assert isinstance(watch.fault, ZeroDivisionError)
    assert watch.facts().notes == ["the watching ended early: ZeroDivisionError: ours"]


def test_an_error_while_looking_changes_no_bit(monkeypatch):
    def trained(watched):
        torch.manual_seed(3)
        model, optimizer = small()
        with Watch().watching() if watched else nullcontext():
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(model).backward()
                optimizer.step()
        return [p.detach().clone() for p in model.parameters()]

    def broken(self):
        raise ZeroDivisionError("ours")

    alone = trained(False)
    monkeypatch.setattr(WatchedOptimizer, "gradients", broken)
    with pytest.warns(UserWarning, match="the training goes on"):
        watched = trained(True)
    assert all(torch.equal(a, b) for a, b in zip(alone, watched, strict=True))


def test_the_fixture_fails_a_test_whose_loop_is_wrong(pytester):
    pytester.makepyfile(
        """
        import torch

        def train(right):
            model = torch.nn.Linear(2, 1)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(4):
                if right:
                    optimizer.zero_grad()
                model(torch.ones(1, 2)).sum().backward()
                optimizer.step()

        def test_right(gradparity_audit):
            train(True)

        def test_wrong(gradparity_audit):
            train(False)
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*GP101 gradients-left-over*"])


class Wrapper(torch.optim.SGD):
    """An optimizer around an optimizer, as Lightning's: it shares the attributes, and is in no list of anybody."""

    def __init__(self, inner):
        self.__dict__ = dict(inner.__dict__)
        self.optimizer = inner

    def step(self):
        self.optimizer.step()


def test_calls_of_a_wrapper_are_those_of_the_optimizer_in_it():
    watch = Watch()
    with watch.watching():
        model, inner = small()
        optimizer = Wrapper(inner)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
    [story] = watch.facts().stories
    assert [type(event.what) for event in story.events] == [ZeroGrad, Backward, StepMade] * 3
