"""The statement of an audit is true of its loop, also of a clip that does nothing."""

import pytest
import torch
from methods_by_task import OwnRate
from torch import nn

import gradparity
from audited_loops import X, loss_of, small
from gradparity.auditing.watching.watch import Watch


def between_the_largest_element_and_the_largest_norm(gradients):
    element, norm = max(g.abs().max() for g in gradients), max(g.norm() for g in gradients)
    assert element < norm, "a norm must not be taken for the largest element"
    return float(element + norm) / 2


@pytest.mark.parametrize(
    ("clip", "threshold", "reached"),
    [
        (nn.utils.clip_grad_value_, lambda gradients: 0.001, 4),
        (nn.utils.clip_grad_value_, between_the_largest_element_and_the_largest_norm, 0),
        (nn.utils.clip_grad_norm_, lambda gradients: 0.01, 4),
        (nn.utils.clip_grad_norm_, lambda gradients: 1e3, 0),
    ],
)
def test_it_is_counted_how_often_a_clip_reaches_its_threshold(clip, threshold, reached):
    with gradparity.audit() as audit:
        model, optimizer = small()
        for _ in range(4):
            optimizer.zero_grad()
            loss_of(model).backward()
            clip(model.parameters(), threshold([p.grad for p in model.parameters()]))
            optimizer.step()
    [said] = [item.text for item in audit.report.does if item.text.startswith("clipped")]
    assert said.endswith(f"threshold reached in {reached} of 4 steps")
    assert any("nothing reached" in words for words in audit.report.unexercised) == (reached == 0)


def said_of(loop):
    with gradparity.audit() as audit:
        loop()
    return [item.text for item in audit.report.does], audit.report.unexercised


def test_calls_of_autograd_grad_are_counted_apart_and_weigh_nothing_in_the_loss():
    def inner_and_outer():
        model, optimizer = small()
        for _ in range(3):
            optimizer.zero_grad()
            for _ in range(2):
                torch.autograd.grad(loss_of(model), list(model.parameters()))
                (loss_of(model) / 2).backward()
            optimizer.step()

    said, unexercised = said_of(inner_and_outer)
    assert {"2 backwards a step", "2 calls of autograd.grad a step"} < set(said)
    assert "loss: NllLoss; the weights of a window's tokens sum to 1" in said
    assert unexercised == ("SGD: no window was shorter than 2 microbatches",)


def test_two_losses_of_a_step_are_no_microbatches():
    def real_and_fake():
        model, optimizer = small()
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            loss_of(model, -X).backward()
            optimizer.step()

    said, unexercised = said_of(real_and_fake)
    assert "2 backwards a step" in said
    assert unexercised == ()


def test_optimizers_that_do_the_same_are_told_once():
    def one_for_each_parameter():
        model, _ = small()
        optimizers = [torch.optim.SGD([p], lr=0.1) for p in model.parameters()]
        for _ in range(3):
            model.zero_grad()
            loss_of(model).backward()
            for optimizer in optimizers:
                optimizer.step()

    said, _ = said_of(one_for_each_parameter)
    assert said[0] == "4 optimizers, each: SGD in 1 group of 1 parameter, weight decay 0, 3 steps watched"
    assert sum("steps watched" in item for item in said) == 1


def test_a_rate_that_rises_and_falls_is_told_with_its_peak():
    def up_and_down():
        model, optimizer = small()
        for rate in (0.1, 0.4, 0.2):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()

    said, _ = said_of(up_and_down)
    assert said[-1] == "learning rate 0.1 to 0.2, and as much as 0.4 in between; no scheduler was seen"


def test_the_rates_of_many_groups_are_told_by_their_range():
    def layer_by_layer():
        model, _ = small()
        groups = [{"params": [p], "lr": 0.1 / 2**i} for i, p in enumerate(model.parameters())]
        optimizer = torch.optim.SGD(groups)
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()

    said, _ = said_of(layer_by_layer)
    assert said[-1] == "learning rate 0.1 (0.0125 in the slowest of 4 groups); no scheduler was seen"


def test_backwards_whose_gradients_were_emptied_are_counted_apart():
    def looked_at_before():
        model, optimizer = small()
        for _ in range(3):
            loss_of(model, -X).backward()
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
            optimizer.zero_grad()

    said, _ = said_of(looked_at_before)
    assert "1 backward a step, after 1 more whose gradients were emptied" in said
    assert "loss: NllLoss; the weights of a window's tokens sum to 1" in said


def test_losses_of_one_forward_are_no_microbatches():
    def parts_of_one_output():
        model, optimizer = small()
        for _ in range(3):
            optimizer.zero_grad()
            out = model(X)
            for part in range(2):
                out[:, part].square().mean().backward(retain_graph=True)
            optimizer.step()

    said, unexercised = said_of(parts_of_one_output)
    assert "2 backwards a step" in said
    assert unexercised == ()


class OwnRates(torch.optim.lr_scheduler.LRScheduler):
    """A schedule that leaves the rate to its optimizer."""

    def get_lr(self):
        return [None for _ in self.optimizer.param_groups]


@pytest.mark.parametrize(("scheduled", "words"), [(False, "itself"), (True, "itself; OwnRates stepped 3 times")])
def test_an_optimizer_that_computes_its_rate_is_told_so(scheduled, words):
    def without_a_rate():
        model, _ = small()
        optimizer = OwnRate(model.parameters())
        schedule = OwnRates(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
            if scheduled:
                schedule.step()

    said, _ = said_of(without_a_rate)
    assert said[-1] == f"the optimizer computes its learning rate {words}"


def test_a_clip_that_was_given_nothing_is_no_clip_of_the_statement():
    def clipped_first():
        model, optimizer = small()
        for _ in range(3):
            optimizer.zero_grad()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            loss_of(model).backward()
            optimizer.step()

    said, unexercised = said_of(clipped_first)
    assert not any("clipped" in item for item in said)
    assert not any("clip" in item for item in unexercised)


def test_an_optimizer_that_is_built_after_the_watched_steps_is_named():
    def phases(*kinds):
        model, _ = small()
        for kind in kinds:
            optimizer = kind(model.parameters(), lr=0.01)
            for _ in range(3):
                optimizer.zero_grad()
                loss_of(model).backward()
                optimizer.step(lambda: loss_of(model))

    notes = []
    for kinds in [(torch.optim.Adam, torch.optim.Adam), (torch.optim.Adam,)]:
        watch = Watch(3)
        with watch.watching():
            phases(*kinds)
            other = [torch.optim.LBFGS([torch.zeros(1, requires_grad=True)]) for _ in kinds[1:]]
        notes.append(watch.facts().notes)
        assert len(other) == len(kinds) - 1
    [named] = notes[0]
    assert named.startswith("LBFGS, built at test_loop_summary.py:")
    assert named.endswith("after the watched steps, was not watched")
    assert notes[1] == []
