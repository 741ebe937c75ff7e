"""A null test for every task, and what must be caught is caught, at the step and phase where it happens."""

import os
import shutil
from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from gradparity.parity.lockstep import lockstep
from gradparity.parity.state import Part
from gradparity.studies.matrix import two_runs
from gradparity.studies.matrix.cell import MICROBATCH_COUNTS, TASK_NAMES, MatrixCell
from gradparity.studies.matrix.run import CellOutcome, compare_cell, run_cell, run_cells, unavailable
from gradparity.training import Phase, manual


def cell_of(task, **fields):
    sparse = {"optimizer": "SparseAdam", "clip": "none"} if task == "sparse" else {}
    return MatrixCell(task=task, **sparse, **fields)


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=pytest.mark.slow if task == "compiled" else ()) for task in TASK_NAMES]
)
def test_the_reference_is_one_training_with_itself(task):
    precision = "fp32" if unavailable(task, "fp16") else "fp16"
    cell = cell_of(task, precision=precision, average="EMA")
    result = compare_cell(cell, two_runs.cell_lane(cell, "backward"), two_runs.cell_lane(cell, "backward"))
    assert (result.outcome, result.max_ulp) == (CellOutcome.IDENTICAL, 0)
    assert result.numbers > 10_000
    if task != "compiled":  # a processor with instructions for halves keeps more than they hold, and none overflows
        assert result.skipped == ((3,) if precision == "fp16" else ())


def zeros_for_none(loss, parameters):
    manual(loss, parameters)
    for p in parameters:
        if p.grad is None:
            p.grad = torch.zeros_like(p)


def test_zeros_in_the_place_of_none_are_caught_where_a_branch_is_not_taken():
    cell = MatrixCell(task="branches", k=1)
    candidate = two_runs.cell_lane(cell, "manual")
    candidate = replace(candidate, run=replace(candidate.run, route=zeros_for_none))
    result = compare_cell(cell, two_runs.cell_lane(cell, "backward"), candidate)
    assert (result.outcome, result.step, result.phase, result.part) == ("different", 0, "accumulated", "gradients")
    assert "unused" in result.why or "bright" in result.why


@pytest.mark.parametrize(
    ("cell", "candidate", "step", "phase", "part"),
    [
        (MatrixCell(task="additive"), "naive", 0, "accumulated", "aliasing"),
        (MatrixCell(task="digits_mlp"), "summed-loss", 0, "accumulated", "gradients"),
        (MatrixCell(task="lstm"), "summed-loss", 0, "accumulated", "gradients"),
        (MatrixCell(task="digits_cnn", precision="fp16"), "clip-before-unscale", 0, "unscaled", "gradients"),
    ],
)
def test_a_wrong_loop_is_caught_at_its_first_difference(cell, candidate, step, phase, part):
    result = run_cell(cell, candidate)
    assert (result.outcome, result.step, result.phase, result.part) == ("different", step, phase, part)


@pytest.mark.parametrize("task", ["transformer", "gan"])
def test_a_different_decay_of_the_average_is_caught_at_the_first_step(task, monkeypatch):
    cell = MatrixCell(task=task, average="EMA")
    reference = two_runs.cell_lane(cell, "backward")
    monkeypatch.setattr(two_runs, "get_ema_multi_avg_fn", lambda decay: get_ema_multi_avg_fn(0.91))
    result = compare_cell(cell, reference, two_runs.cell_lane(cell, "manual"))
    # The first update copies the weights; the decay enters with the second.
    assert (result.outcome, result.step, result.phase, result.part) == ("different", 1, "stepped", "also")


@pytest.mark.parametrize(
    ("task", "thing"), [("gan", "discriminator's optimizer"), ("gru", "recurrent state"), ("lstm", "recurrent state")]
)
def test_one_changed_bit_of_extra_state_is_caught(task, thing):
    cell = MatrixCell(task=task)
    reference, candidate = two_runs.cell_lane(cell, "backward"), two_runs.cell_lane(cell, "manual")
    for found in lockstep(reference, candidate, two_runs.cell_windows(cell)):
        assert not found.mismatches
        if found.place.step == 1:
            break
    state = candidate.extra_state[thing].state_dict()["state"]
    tensor = state if isinstance(state, torch.Tensor) else state[0]["exp_avg"]
    tensor.view(torch.int32).view(-1)[0] ^= 1
    (found, *_) = lockstep(reference, candidate, [])
    also = [m.name.startswith(thing) for m in found.mismatches if m.part == Part.EXTRA]
    assert also == [True]
    assert {m.part for m in found.mismatches} <= {Part.EXTRA, Part.BUFFERS}, "it may be an attribute of the model too"


@pytest.mark.parametrize("k", MICROBATCH_COUNTS)
def test_some_windows_leave_a_branch_out_and_some_do_not(k):
    cell = MatrixCell(task="branches", k=k)
    lane = two_runs.cell_lane(cell, "backward")
    taken = Counter()
    for window in two_runs.cell_windows(cell):
        for moment in lane.step(lane.run, window):
            if moment.phase == Phase.CLIPPED:
                taken["bright"] += lane.run.model.bright.weight.grad is not None
                taken["dark"] += lane.run.model.dark.weight.grad is not None
        assert lane.run.model.unused.grad is None
        assert all(p.grad is None for p in lane.run.model.frozen.parameters())
    assert 0 < min(taken.values()) < two_runs.STEPS_PER_CELL


@pytest.mark.parametrize("k", MICROBATCH_COUNTS)
def test_windows_are_partial_where_five_steps_reach_so_far(k):
    sizes = [len(window.microbatches) for window in two_runs.cell_windows(MatrixCell(k=k))]
    assert len(sizes) == two_runs.STEPS_PER_CELL
    assert (min(sizes) < k) == (k in (3, 4, 8))


def test_torch_compile_does_compile():
    from torch._dynamo.utils import counters

    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("there is no C++ compiler")
    assert unavailable("compiled", "fp32") is None
    torch._dynamo.reset()
    counters.clear()
    assert run_cell(MatrixCell(task="compiled", k=1)).outcome == CellOutcome.IDENTICAL
    assert counters["stats"]["unique_graphs"] > 0


def test_two_processes_find_what_one_finds():
    cells = [MatrixCell(task="additive"), MatrixCell(task="reentrant"), MatrixCell(task="branches", k=2)]
    results = {result.cell: result for result in run_cells(cells, processes=2)}
    assert results == {cell: run_cell(cell) for cell in cells}
