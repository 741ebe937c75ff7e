"""Right loops that are written or rounded in their own way, and the tasks of the matrix: nothing is said about them.

Every loop is watched alone, from before its model is built.
"""

import itertools
from dataclasses import replace

import pytest
from right_loops import RIGHT, RIGHT_WITHOUT_A_SCALER

from gradparity.auditing.rules import judge
from gradparity.auditing.watching.watch import Watch
from gradparity.faults.patching import reference_with
from gradparity.parity.random_stream import RandomStream, seed_of
from gradparity.studies.matrix.cell import (
    AVERAGE_NAMES,
    CLIP_NAMES,
    OPTIMIZER_NAMES,
    SCHEDULE_NAMES,
    TASK_NAMES,
    MatrixCell,
    product_of,
    refusal,
)
from gradparity.studies.matrix.two_runs import cell_lane, cell_windows
from gradparity.studies.routes_that_differ import VARIANTS
from gradparity.studies.train_two_ways import build

pytestmark = pytest.mark.filterwarnings("ignore")  # as torch has it of some optimizers and of compiled models

ROUTES = ("backward", "manual")

TOLD = {
    "checkpointed": ["GP608"],  # batch normalization in a checkpointed block
    "branches": ["GP807"],  # a parameter that no loss uses
    "zeros for None": ["GP705"],
}
"""The tasks and loops of which something unusual is said, which is so."""


def said(loop, *arguments):
    """Return what an audit finds in ``loop(*arguments)``, and the number of steps it watched."""
    watch = Watch(1000)
    with watch.watching():
        loop(*arguments)
    assert watch.fault is None
    facts = watch.facts()
    return [(f.rule.code, f.sentence) for f in judge(facts)], sum(story.steps for story in facts.stories)


def train_lane(make, windows):
    lane = make()
    for window in windows():
        with lane.random.active():
            for _ in lane.step(lane.run, window):
                pass


def of_cell(cell, route):
    train_lane(lambda: cell_lane(cell, route), lambda: cell_windows(cell))


CELLS = [
    *product_of(task=TASK_NAMES, precision=("fp32", "fp16")),
    *product_of(task=TASK_NAMES, average=AVERAGE_NAMES[1:], clip=("none",)),
    *product_of(optimizer=OPTIMIZER_NAMES, precision=("fp32", "fp16")),
    *product_of(schedule=SCHEDULE_NAMES, clip=CLIP_NAMES, precision=("bf16", "fp16")),
    *product_of(k=(1, 2, 8), precision=("fp64", "bf16")),
]
ALLOWED = [cell for cell in dict.fromkeys(CELLS) if refusal(cell) is None]
QUICK = [
    (MatrixCell(precision="fp16", average="EMA"), "manual"),
    (MatrixCell(task="gan"), "backward"),
    (MatrixCell(task="checkpointed"), "backward"),
]


@pytest.mark.parametrize(("cell", "route"), QUICK, ids=str)
def test_nothing_is_said_about_a_cell_of_each_kind(cell, route):
    found, steps = said(of_cell, cell, route)
    assert [code for code, _ in found] == TOLD.get(cell.task, [])
    assert steps >= 5


def how_long(index):
    return pytest.mark.slow if index % 3 else pytest.mark.long


@pytest.mark.parametrize(
    ("cell", "route"),
    [
        pytest.param(cell, route, marks=how_long(index), id=f"{cell}-{route}")
        for index, (cell, route) in enumerate(itertools.product(ALLOWED, ROUTES))
    ],
)
def test_nothing_is_said_about_any_cell_of_the_matrix(cell, route):
    if route == "manual" and cell.task == "reentrant":
        pytest.skip("autograd.grad does not reach into a reentrant checkpoint")
    try:
        found, steps = said(of_cell, cell, route)
    except RuntimeError as error:
        if "could not create a primitive" not in str(error):
            raise
        pytest.skip("this processor has no LSTM in half precision")
    expected = TOLD.get(cell.task, [])
    assert [code for code, _ in found] == ([] if (cell.task, route) == ("branches", "manual") else expected)
    assert steps >= 5


def of_variant(variant):
    config = replace(variant.config, steps=6)
    task = variant.task()

    def made():
        lane = build.lane(config, task, "backward")
        return replace(lane, step=variant.loop.step, run=replace(lane.run, route=variant.loop.route))

    train_lane(made, lambda: build.windows(config, task))


@pytest.mark.long
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.loop.name)
def test_nothing_is_said_about_a_loop_that_computes_the_same_update_in_another_way(variant):
    found, steps = said(of_variant, variant)
    assert [code for code, _ in found] == TOLD.get(variant.name, [])
    assert steps == 6


def of_loop(loop, precision):
    with RandomStream(seed_of(0, "stress")).active():
        arguments = vars(reference_with([])["build"](precision))
        if loop in RIGHT_WITHOUT_A_SCALER:
            arguments = {name: value for name, value in arguments.items() if name != "scaler"}
        loop(**arguments)


@pytest.mark.parametrize("loop", [*RIGHT, *RIGHT_WITHOUT_A_SCALER], ids=lambda loop: loop.__name__)
def test_nothing_is_said_about_a_right_loop_of_ones_own(loop):
    found, steps = said(of_loop, loop, "fp32" if loop in RIGHT_WITHOUT_A_SCALER else "fp16")
    assert found == []
    assert steps == 8
