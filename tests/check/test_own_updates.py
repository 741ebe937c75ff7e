"""Updates that no optimizer of PyTorch makes: losses and gradients are judged, and the optimizer that does the same is found."""

import sys
from dataclasses import replace
from functools import partial

import pytest
import torch

import own_updates
from gradparity.check import check_loop
from gradparity.check.check_loop import check
from gradparity.check.lookup import fault_lookup, rounding
from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.presentation.remarks import remarks
from gradparity.check.presentation.report import headline
from gradparity.check.running.user_loop import call_by_name
from gradparity.check.running.users_stack import numbers_in
from gradparity.check.updates_and_averages.fitted_updates import Move, fit
from gradparity.faults import FAULTS
from own_updates import Lion, sgd_written_out, with_its

SLOW = pytest.mark.slow


@pytest.fixture(autouse=True)
def _few_faults(monkeypatch):
    few = {name: FAULTS[name] for name in ("zero-grad-missing", "loss-detached")}
    monkeypatch.setattr(check_loop, "look_up", partial(fault_lookup.look_up, known=few))
    monkeypatch.setattr(rounding, "FAULTS", few)


def checked(loop, precision=None):
    return check(partial(call_by_name, loop, "loop"), "loop", precision, quiet=True)


CLIPPED = "those of torch.optim.SGD(lr=0.1) with gradients clipped to 30"
WRITTEN_OUT = (
    "those of torch.optim.AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01) with one count of steps for "
    "all parameters, up to rounding"
)
GIVEN_RATES = "those of torch.optim.SGD(momentum=0.9) with a learning rate that changes"


@pytest.mark.parametrize(
    ("loop", "match", "words"),
    [
        (own_updates.adamw_written_out, Match.IDENTICAL, WRITTEN_OUT),
        (own_updates.the_first_that_one_writes(), Match.SAME_UPDATES, "those of torch.optim.SGD(lr=0.05), up to"),
        (sgd_written_out(at_once=True), Match.ROUNDING, CLIPPED),
        (with_its(Lion), Match.IDENTICAL, "not those of SGD, Adam or AdamW"),
        pytest.param(sgd_written_out(), Match.IDENTICAL, CLIPPED, marks=SLOW),
        pytest.param(own_updates.scheduled_by_what_it_was_given, Match.IDENTICAL, GIVEN_RATES, marks=SLOW),
    ],
)
def test_a_right_loop_that_makes_its_updates_itself_passes_and_the_optimizer_is_named(loop, match, words):
    result = checked(loop)
    assert (result.finding.match, result.code) == (match, 0), headline(result)
    assert any(words in line for line in remarks(result)), remarks(result)


@pytest.mark.parametrize(
    ("loop", "fault"),
    [
        (own_updates.the_first_that_one_writes(zeroes=False), "zero-grad-missing"),
        (with_its(Lion, factor=0.5), "loss-times-0.5"),
        pytest.param(sgd_written_out(zeroes=False), "zero-grad-missing", marks=SLOW),
        pytest.param(sgd_written_out(factor=1.5), "loss-times-1.5", marks=SLOW),
        pytest.param(with_its(partial(torch.optim.SGD, lr=0.1), factor=0.5), "loss-times-0.5", marks=SLOW),
    ],
)
def test_a_wrong_gradient_before_such_an_update_is_named(loop, fault):
    result = checked(loop)
    assert [one.name for one in result.finding.faults] == [fault]
    assert result.code == 1


@SLOW
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_right_loop_with_a_class_of_its_own_passes_in_other_precisions(precision):
    assert checked(with_its(Lion), precision).finding.match == Match.IDENTICAL


ANOTHER_MODEL = "cannot be judged: it also trains other parameters than the given model's, such as judge"


@pytest.mark.parametrize(
    ("loop", "code", "sentence"),
    [
        (own_updates.searched_by_lbfgs, 2, "trains the model with LBFGS, which calls its closure several times a step"),
        (own_updates.as_a_gan(own=True), 2, ANOTHER_MODEL),
        (own_updates.sharpness_aware, 2, "and computes other losses than the reference"),
        pytest.param(own_updates.by_a_closure, 0, "Identical: ", marks=SLOW),
        pytest.param(own_updates.with_gradients_of_its_own, 2, "with gradients that never reach p.grad", marks=SLOW),
        pytest.param(own_updates.as_a_gan(own=False), 2, ANOTHER_MODEL, marks=SLOW),
    ],
)
def test_a_loop_with_closures_or_two_models_is_judged_or_gets_one_sentence(loop, code, sentence):
    result = checked(loop)
    assert (result.code, sentence in headline(result)) == (code, True), headline(result)


def updates(build, steps=8, change=lambda step, after: after):
    """Return the updates that an optimizer makes of some gradients; one parameter has few of them."""
    parameters = [torch.nn.Parameter(0.3 * torch.randn(shape)) for shape in ((6, 8), (8, 4), (8,), (4, 4))]
    optimizer = build(parameters)
    for step in range(steps):
        for number, p in enumerate(parameters):
            p.grad = None if number == 3 and step % 3 != 1 else 0.01 * (number + 1) * torch.randn_like(p)
        before, gradients = [p.detach().clone() for p in parameters], [p.grad for p in parameters]
        optimizer.step()
        yield Move(before, change(step, [p.detach().clone() for p in parameters]), gradients)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (partial(torch.optim.SGD, lr=0.1), "SGD(lr=0.1)"),
        (partial(torch.optim.SGD, lr=0.05, momentum=0.7), "SGD(lr=0.05, momentum=0.7)"),
        (
            partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
            "SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)",
        ),
        (partial(torch.optim.Adam, lr=1e-3), "Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08)"),
        (
            partial(torch.optim.AdamW, lr=3e-4, betas=(0.7, 0.95), weight_decay=0.1),
            "AdamW(lr=0.0003, betas=(0.7, 0.95), eps=1e-08, weight_decay=0.1)",
        ),
        (
            partial(torch.optim.Adam, lr=1e-3, weight_decay=0.01),
            "Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.01)",
        ),
    ],
)
def test_each_optimizer_is_found_with_its_numbers_bit_for_bit(build, words):
    found = fit(list(updates(build)), [0.7, 0.95], [30.0])
    assert (str(found), found.bits) == (f"torch.optim.{words}", True)


@pytest.mark.parametrize("build", [torch.optim.RMSprop, torch.optim.Adagrad, Lion])
def test_other_optimizers_are_not_taken_for_one_of_these(build):
    found = fit(list(updates(build)), [], [])
    assert found.alike <= 2


def test_an_update_that_differs_later_is_found_with_its_parameter():
    def change(step, after):
        return [*after[:2], 1.01 * after[2], after[3]] if step == 5 else after

    found = fit(list(updates(partial(torch.optim.SGD, lr=0.1), change=change)), [], [])
    assert (found.alike, found.worst[5]) == (5, 2)


def test_updates_of_other_gradients_do_not_fit():
    moves = list(updates(partial(torch.optim.Adam, lr=1e-3)))
    other = [replace(move, gradients=[None if g is None else g.flip(0) for g in move.gradients]) for move in moves]
    assert fit(other, [], []).alike <= 2


class WithNumbers:
    def __init__(self):
        self.betas = (0.87, 0.993)

    def step(self, weight):
        return weight * 0.125


def test_the_numbers_in_variables_attributes_and_code_are_candidates():
    rate, optimizer = 0.003, WithNumbers()
    assert optimizer.step(rate) == rate * 0.125
    assert {0.003, 0.87, 0.993, 0.125} <= set(numbers_in(sys._getframe()))
