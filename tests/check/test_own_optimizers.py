"""A loop that trains with an optimizer of its own is judged like any other, also if its fault is in no dictionary."""

from functools import partial
from pathlib import Path

import torch
from torch import nn

from gradparity.check.check_loop import check
from gradparity.check.lookup.fault_lookup import Match
from gradparity.check.presentation.report import headline, remarks
from gradparity.check.running.user_loop import call_by_name
from peoples_loops import windows


def nothing(model):
    pass


def trained(model, batches, loss, plan, damaged=nothing, kind=torch.optim.SGD, divide=True):
    optimizer = kind(model.parameters(), lr=0.01)
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            (loss(model, batch) / (tokens if divide else plan.count(batch))).backward()
        damaged(model)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        optimizer.step()


def right(model, batches, loss, plan):
    trained(model, batches, loss, plan)


def halved_in_part(model, batches, loss, plan):
    def damaged(model):
        model.up.weight.grad *= 0.5  # wrong

    trained(model, batches, loss, plan, damaged)


def a_mean_of_each_microbatch(model, batches, loss, plan):
    trained(model, batches, loss, plan, divide=False)


def checked(loop):
    return check(partial(call_by_name, loop, "loop"), "loop", quiet=True)


def test_a_right_loop_is_identical():
    assert checked(right).finding.match == Match.IDENTICAL


def test_a_fault_that_is_in_no_dictionary_is_pointed_at_by_line_and_place():
    result = checked(halved_in_part)
    assert (result.finding.matched, result.code) == (False, 1)
    assert headline(result).startswith("loop has a fault that is not in the dictionary")
    assert "model.up.weight.grad *= 0.5  # wrong" in {line.source for line in result.lines}
    assert {Path(line.file).parent for line in result.lines} <= {
        Path(__file__).parent,
        Path(__file__).parents[1] / "helpers",
    }
    assert any("At step 0, microbatch 3, phase forward, the loss" in line for line in remarks(result))


def test_a_known_fault_is_named():
    result = checked(a_mean_of_each_microbatch)
    assert "mean-loss-not-divided-by-k" in {fault.name for fault in result.finding.faults}
    assert (result.finding.match, result.code) == (Match.FAULT, 1)
