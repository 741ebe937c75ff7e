"""What is refused cannot be run: PyTorch raises, whichever way ``p.grad`` is filled."""

import pytest
import torch

from gradparity.matrix import lanes, run
from gradparity.matrix.cell import AXES, CLIPS, OPTIMIZERS, PRECISIONS, TAKE_SPARSE, TASKS, Cell, refusal
from gradparity.matrix.run import Outcome, run_cell
from gradparity.training import Moment, Phase

REFUSED = {
    "the optimizer takes no sparse gradients": (
        [Cell(task="sparse", optimizer=name, clip="none") for name in OPTIMIZERS if name not in TAKE_SPARSE],
        "(does not support|`fused`.*) sparse",
    ),
    "sparse gradients cannot be clipped": (
        [Cell(task="sparse", optimizer=name, clip=clip) for name in TAKE_SPARSE for clip in CLIPS if clip != "none"],
        "Could not run 'aten::(linalg_vector_norm|clamp_min_)' with arguments from the 'SparseCPU' backend",
    ),
    "SparseAdam takes nothing but sparse gradients": (
        [Cell(task=task, optimizer="SparseAdam") for task in TASKS if task not in ("sparse", "reentrant")],
        "SparseAdam does not support dense gradients",
    ),
    "Muon takes nothing but matrices": (
        [Cell(task=task, optimizer="Muon") for task in TASKS if task not in ("sparse", "matrices", "reentrant")],
        "Muon only supports 2D parameters",
    ),
    "GradScaler takes no closure, which LBFGS needs": (
        [
            Cell(task=task, optimizer="LBFGS", precision="fp16")
            for task in TASKS
            if task not in ("sparse", "gan", "lstm", "reentrant")
        ],
        "Closure use is not currently supported if GradScaler is enabled",
    ),
    "LBFGS flattens gradients by view(), which channels_last ones do not allow": (
        [Cell(task="channels_last", optimizer="LBFGS", precision=precision) for precision in PRECISIONS[:-1]],
        "view size is not compatible with input tensor's size and stride",
    ),
    "LBFGS searches along one loss, and a GAN has two": (
        [Cell(task="gan", optimizer="LBFGS", precision=precision) for precision in PRECISIONS[:-1]],
        "missing 1 required positional argument: 'closure'",
    ),
}
"""Cells by reason, and what PyTorch says."""


def train(cell: Cell, route: str) -> None:
    lane = lanes.lane(cell, route)
    for window in lanes.windows(cell):
        with lane.random.active():
            list(lane.step(lane.run, window))


@pytest.mark.parametrize("route", ["backward", "manual"])
@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_refused_raises_by_either_route(reason, route):
    cells, words = REFUSED[reason]
    assert cells
    for cell in cells:
        assert refusal(cell) == reason
        with pytest.raises((RuntimeError, ValueError, TypeError, NotImplementedError), match=words):
            train(cell, route)


def test_every_reason_is_shown_to_hold():
    reasons = {
        refusal(Cell(task=task, optimizer=optimizer, clip=clip, precision=precision))
        for task in TASKS
        for optimizer in OPTIMIZERS
        for clip in CLIPS
        for precision in PRECISIONS
    }
    assert reasons == {*REFUSED, None, "reentrant checkpointing refuses autograd.grad"}


def test_reentrant_checkpointing_trains_by_backward_and_refuses_autograd_grad():
    cell = Cell(task="reentrant")
    train(cell, "backward")
    with pytest.raises(RuntimeError, match=r"torch\.utils\.checkpoint is incompatible with \.grad\(\)"):
        train(cell, "manual")


@pytest.mark.parametrize("route", ["backward", "manual"])
def test_error_if_nonfinite_raises_at_the_step_that_overflows(route):
    cell = Cell(precision="fp16", clip="error_if_nonfinite")
    lane = lanes.lane(cell, route)
    lane.run.scaler.load_state_dict(lanes.scaler_of(Cell(precision="fp16"), "cpu").state_dict())
    steps = 0
    with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):  # noqa: PT012
        for window in lanes.windows(cell):
            list(lane.step(lane.run, window))
            steps += 1
    assert steps == 3


@pytest.mark.parametrize("route", ["backward", "manual"])
def test_fused_sgd_with_momentum_breaks_where_a_first_gradient_comes_late(route, monkeypatch):
    monkeypatch.setattr(lanes, "breaks_with_momentum", lambda cell: False)
    with pytest.raises(TypeError, match=r"expected Tensor as element \d in argument 2, but got NoneType"):
        train(Cell(task="branches", optimizer="SGD fused", k=1), route)


def test_a_machine_without_a_compiler_refuses_with_its_reason(monkeypatch):
    def step(*_):
        raise RuntimeError("No working C++ compiler found\nand more")
        yield Moment(Phase.STEPPED)

    made = lanes.lane
    monkeypatch.setattr(lanes, "lane", lambda *given: lanes.replace(made(*given), step=step))
    run.unavailable.cache_clear()
    try:
        result = run_cell(Cell(task="compiled"))
    finally:
        run.unavailable.cache_clear()
    assert result.outcome == Outcome.REFUSED
    assert result.why == "not on this machine: RuntimeError: No working C++ compiler found"


def test_an_error_that_nobody_expects_is_no_refusal(monkeypatch):
    monkeypatch.setitem(lanes.CLIPS, "norm", torch.nn.Module)
    result = run_cell(Cell())
    assert result.outcome == Outcome.RAISED
    assert result.why.startswith("TypeError: ")


def test_axes_name_every_optimizer_of_torch():
    kinds = {
        name
        for name in dir(torch.optim)
        if isinstance(kind := getattr(torch.optim, name), type) and issubclass(kind, torch.optim.Optimizer)
    }
    assert {name.partition(" ")[0] for name in AXES["optimizer"]} == kinds - {"Optimizer"}
