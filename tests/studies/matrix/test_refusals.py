"""What is refused cannot be run: PyTorch raises, whichever way ``p.grad`` is filled, and in these words."""

import re
from functools import partial

import pytest
import torch

from gradparity.studies.matrix import refused_by_torch, run, two_runs
from gradparity.studies.matrix.cell import (
    AXES,
    CLIP_NAMES,
    OPTIMIZER_NAMES,
    PRECISION_NAMES,
    TASK_NAMES,
    MatrixCell,
    refusal,
)
from gradparity.studies.matrix.run import CellOutcome, run_cell
from gradparity.training import Moment, Phase

REFUSED = [
    cell
    for cell in (
        *(MatrixCell(task=task, optimizer=name, clip="none") for task in TASK_NAMES for name in OPTIMIZER_NAMES),
        *(MatrixCell(task="sparse", optimizer="SGD", clip=clip) for clip in CLIP_NAMES),
        *(
            MatrixCell(task=task, optimizer="LBFGS", precision=precision)
            for task in TASK_NAMES
            for precision in PRECISION_NAMES
            if task != "sparse"
        ),
    )
    if cell.task != "reentrant"
    and refusal(cell)
    # Some machines refuse recurrent cells in fp16 before there is an optimizer.
    and (cell.task not in ("gru", "lstm") or cell.precision != "fp16")
]
"""Cells that cannot be run, whichever way ``p.grad`` is filled."""

OURS = "LBFGS searches along one loss, and a GAN has two"


def train(cell: MatrixCell, route: str) -> None:
    lane = two_runs.cell_lane(cell, route)
    for window in two_runs.cell_windows(cell):
        with lane.random.active():
            list(lane.step(lane.run, window))


def without_sizes(sentence: str) -> str:
    return re.sub(r"torch\.Size\(.*?\)|\d+", "#", sentence)


@pytest.mark.parametrize("route", ["backward", "manual"])
@pytest.mark.parametrize("cell", REFUSED, ids=str)
def test_a_refused_cell_raises_with_the_words_of_the_refusal(cell, route):
    why, raised = refusal(cell), refused_by_torch.refused(partial(train, cell, route))
    assert raised is not None
    assert why == OURS or without_sizes(why) == without_sizes(raised)


def test_cells_that_every_torch_refuses_are_refused_and_others_are_not():
    assert len(REFUSED) > 50
    for refused, fields, words in (
        (True, {"optimizer": "SparseAdam"}, "SparseAdam does not support dense gradients"),
        (True, {"optimizer": "Muon"}, "Muon only supports 2D parameters"),
        (True, {"task": "sparse", "optimizer": "AdamW", "clip": "none"}, "does not support sparse gradients"),
        (True, {"optimizer": "LBFGS", "precision": "fp16"}, "Closure use is not currently supported"),
        (True, {"task": "gan", "optimizer": "LBFGS"}, OURS),
        (False, {"task": "sparse", "optimizer": "SparseAdam", "clip": "none"}, ""),
        (False, {"task": "sparse", "optimizer": "SGD", "clip": "none"}, ""),
        (False, {"task": "matrices", "optimizer": "Muon"}, ""),
        (False, {"optimizer": "LBFGS"}, ""),
        (False, {"optimizer": "AdamW fused", "precision": "fp16"}, ""),
    ):
        why = refusal(MatrixCell(**fields))
        assert (why is not None) == refused, (fields, why)
        assert words in (why or "")


@pytest.fixture
def asked_anew():
    """Answers of PyTorch are kept; here they are not, neither before nor after."""
    questions = (
        refused_by_torch.a_step,
        refused_by_torch.a_clip,
        refused_by_torch.a_closure,
        refused_by_torch.a_late_gradient,
    )
    for each in questions:
        each.cache_clear()
    yield
    for each in questions:
        each.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_a_torch_that_refuses_more_or_less_is_believed(monkeypatch):
    clipped = MatrixCell(task="sparse", optimizer="SGD", clip="norm")
    monkeypatch.setitem(two_runs.CLIPS, "norm", lambda parameters: None)
    assert refusal(clipped) is None

    def refuses(*_):
        raise RuntimeError("no sparse gradients.  Try another release of torch\nand more")

    refused_by_torch.a_clip.cache_clear()
    monkeypatch.setitem(two_runs.CLIPS, "norm", refuses)
    assert refusal(clipped) == "RuntimeError: no sparse gradients"
    monkeypatch.setattr(torch.optim.SGD, "step", refuses)
    assert refusal(MatrixCell(optimizer="SGD")) == "RuntimeError: no sparse gradients"
    assert refusal(MatrixCell(optimizer="AdamW")) is None


def test_asking_uses_up_no_random_numbers():
    before = torch.get_rng_state()
    refused_by_torch.a_step.__wrapped__("AdamW", "dense")
    assert torch.equal(torch.get_rng_state(), before)


def test_reentrant_checkpointing_trains_by_backward_and_refuses_autograd_grad():
    cell = MatrixCell(task="reentrant")
    train(cell, "backward")
    with pytest.raises(RuntimeError, match="CheckpointFunctionBackward runs a backward inside its own"):
        train(cell, "manual")


@pytest.mark.parametrize("route", ["backward", "manual"])
def test_error_if_nonfinite_raises_at_the_step_that_overflows(route):
    cell = MatrixCell(precision="fp16", clip="error_if_nonfinite")
    lane = two_runs.cell_lane(cell, route)
    lane.run.scaler.load_state_dict(two_runs.scaler_of(MatrixCell(precision="fp16"), "cpu").state_dict())
    steps = 0
    with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):  # noqa: PT012
        for window in two_runs.cell_windows(cell):
            list(lane.step(lane.run, window))
            steps += 1
    assert steps == 3


@pytest.mark.parametrize("route", ["backward", "manual"])
@pytest.mark.parametrize("optimizer", ["SGD", "SGD fused"])
def test_momentum_is_left_out_exactly_where_a_first_gradient_that_comes_late_breaks_it(optimizer, route, monkeypatch):
    cell = MatrixCell(task="branches", optimizer=optimizer, k=1)
    breaks = two_runs.breaks_with_momentum(cell)
    train(cell, route)
    monkeypatch.setattr(two_runs, "breaks_with_momentum", lambda *_: False)
    raised = refused_by_torch.refused(partial(train, cell, route))
    assert (raised is not None) == breaks
    assert raised == refused_by_torch.a_late_gradient(optimizer)


def test_a_machine_without_a_compiler_refuses_with_its_reason(monkeypatch):
    def step(*_):
        raise RuntimeError("No working C++ compiler found\nand more")
        yield Moment(Phase.STEPPED)

    made = two_runs.cell_lane
    monkeypatch.setattr(two_runs, "cell_lane", lambda *given: two_runs.replace(made(*given), step=step))
    run.unavailable.cache_clear()
    try:
        result = run_cell(MatrixCell(task="compiled"))
    finally:
        run.unavailable.cache_clear()
    assert result.outcome == CellOutcome.REFUSED
    assert result.why == "not on this machine: RuntimeError: No working C++ compiler found"


def test_an_error_that_nobody_expects_is_no_refusal(monkeypatch):
    monkeypatch.setitem(two_runs.CLIPS, "norm", torch.nn.Module)
    result = run_cell(MatrixCell())
    assert result.outcome == CellOutcome.RAISED
    assert result.why.startswith("TypeError: ")


def test_axes_name_every_optimizer_of_torch():
    kinds = {
        name
        for name in dir(torch.optim)
        if isinstance(kind := getattr(torch.optim, name), type) and issubclass(kind, torch.optim.Optimizer)
    }
    assert {name.partition(" ")[0] for name in AXES["optimizer"]} == kinds - {"Optimizer"}
