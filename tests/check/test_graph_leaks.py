"""Loops that keep graphs alive fail, although they make the same updates; correct loops raise no false alarm."""

from functools import partial

import pytest

import leaking_loops
import loops
from gradparity.check import check
from gradparity.check.presentation.remarks import remarks
from gradparity.check.presentation.report import headline
from gradparity.check.running.graph_leaks import GraphLeaks
from gradparity.check.running.observe import observe, observe_reference
from gradparity.check.running.user_loop import call_by_name
from gradparity.faults import stress_scenario


def graphs_of(loop, precision="fp16"):
    graphs = GraphLeaks()
    seen = observe(call_by_name(loop, "loop"), graphs.build, precision, graphs.count)
    return graphs, seen


@pytest.mark.parametrize(
    "loop", [*loops.IDENTICAL, leaking_loops.adds_up_numbers, loops.gradients_kept_aside, stress_scenario.reference]
)
def test_a_correct_loop_keeps_no_graph_longer_than_a_step(loop):
    graphs, _ = graphs_of(loop)
    assert len(graphs.alive) == 8
    assert graphs.steps_kept == 0


@pytest.mark.parametrize(("loop", "kept"), [(leaking_loops.adds_up_losses, 4), (leaking_loops.keeps_outputs, 8)])
def test_kept_graphs_are_counted_though_the_updates_are_the_same(loop, kept):
    graphs, seen = graphs_of(loop)
    assert seen == observe_reference([], "fp16"), "to count graphs changes no bit"
    assert graphs.steps_kept == kept
    assert graphs.nodes_per_step > 3, "each microbatch has a graph of more than a node"
    assert [steps for steps, _ in graphs.alive[:4]] == [1, 2, 3, 4]


def test_kept_graphs_fail_the_check_and_the_fix_is_named():
    checked = check(partial(call_by_name, leaking_loops.keeps_outputs, "loop"), "leaking_loops:keeps_outputs", "fp16")
    assert not checked.passed
    assert headline(checked).startswith(
        "The same updates, but leaking_loops:keeps_outputs keeps the graphs of 8 steps alive: "
    )
    assert any("keep its .item() or .detach() instead" in line for line in remarks(checked))
