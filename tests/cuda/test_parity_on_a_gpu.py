"""The routes on a GPU: optimizers, kernels, precisions, random streams, and what a comparison waits for."""

from dataclasses import replace
from io import BytesIO

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Adam, AdamW

from gradparity import training
from gradparity.parity.compare import compare
from gradparity.parity.compare_all import compare_all
from gradparity.parity.difference_kinds import Kind
from gradparity.parity.live_state import LiveState
from gradparity.parity.lockstep import lockstep
from gradparity.parity.many_at_once import ManyPairs
from gradparity.parity.random_stream import RandomStream, generator_states
from gradparity.parity.state import Part, aliases
from gradparity.parity.step_metrics import total_norm
from gradparity.studies.matrix import two_runs
from gradparity.studies.matrix.cell import TASK_NAMES, MatrixCell
from gradparity.studies.matrix.run import CellOutcome, compare_cell, run_cell

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("on_a_gpu")]


def assert_identical(result):
    assert result.outcome == CellOutcome.IDENTICAL, result.why
    assert (result.max_ulp, result.moved > 0) == (0, True)


def assert_identical_or_refused(result):
    if result.outcome == CellOutcome.REFUSED:
        pytest.skip(result.why)
    assert_identical(result)


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_task_is_one_training_both_ways(task, precision):
    sparse = {"optimizer": "SparseAdam", "clip": "none"} if task == "sparse" else {}
    assert_identical_or_refused(run_cell(MatrixCell(task=task, precision=precision, **sparse), device="cuda"))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(
    "optimizer",
    ["Adam", "AdamW", "SGD", "Adam foreach", "SGD foreach", "Adam fused", "AdamW fused", "SGD fused", "Adagrad fused"],
)
def test_every_implementation_of_an_optimizer(optimizer, precision):
    result = run_cell(MatrixCell(optimizer=optimizer, precision=precision), device="cuda")
    assert_identical_or_refused(result)
    assert result.skipped == ((3,) if precision == "fp16" else ())


@pytest.mark.parametrize("kind", [Adam, AdamW])
def test_capturable_optimizers_whose_step_is_counted_on_the_gpu(kind, monkeypatch):
    monkeypatch.setattr(
        two_runs, "optimizer_of", lambda cell, model: kind(model.parameters(), lr=0.01, capturable=True)
    )
    cell = MatrixCell(precision="fp16")
    pair = [two_runs.cell_lane(cell, loop, "cuda") for loop in ("backward", "manual")]
    assert_identical(compare_cell(cell, *pair, "cuda"))
    assert all(s["step"].is_cuda for lane in pair for s in lane.run.optimizer.state.values())


@pytest.mark.parametrize("precision", ["high", "highest"])
def test_both_routes_with_and_without_tf32(precision, monkeypatch):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert_identical(run_cell(MatrixCell(task="digits_mlp"), device="cuda"))
    finally:
        torch.set_float32_matmul_precision(before)


def test_tf32_in_one_of_two_runs_is_seen():
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no TF32")
    before = torch.get_float32_matmul_precision()
    cell = MatrixCell(task="digits_mlp")
    reference, candidate = (two_runs.cell_lane(cell, "backward", "cuda") for _ in range(2))

    def in_tf32(run, window):
        steps = training.train_step(run, window)
        while True:
            torch.set_float32_matmul_precision("high")
            moment = next(steps, None)
            torch.set_float32_matmul_precision("highest")
            if moment is None:
                return
            yield moment

    try:
        torch.set_float32_matmul_precision("highest")
        result = compare_cell(cell, reference, replace(candidate, step=in_tf32), "cuda")
    finally:
        torch.set_float32_matmul_precision(before)
    assert (result.outcome, result.step, result.phase, result.part) == (CellOutcome.DIFFERENT, 0, "forward", "loss")


@pytest.mark.parametrize("backend", [SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_kernel_for_attention(backend, precision):
    with sdpa_kernel(backend):
        assert_identical(run_cell(MatrixCell(task="transformer", precision=precision), device="cuda"))


@pytest.mark.parametrize("candidate", ["naive", "summed-loss", "clip-before-unscale"])
def test_wrong_loops_are_seen(candidate):
    task = "additive" if candidate == "naive" else "digits_cnn"
    result = run_cell(MatrixCell(task=task, precision="fp16"), candidate, device="cuda")
    assert result.outcome == CellOutcome.DIFFERENT
    assert result.step == 0


def test_one_ulp_is_seen_and_measured():
    """The figures of a difference are taken wherever their metric is."""
    w = torch.randn(1000, device="cuda")
    other = w.clone()
    other[17] = other[17].nextafter(torch.tensor(10.0, device="cuda"))
    (mismatch,), figures, _ = compare(Part.PARAMETERS, {"w": w}, {"w": other})
    assert (mismatch.kind, mismatch.figures.max_ulp, figures.differing) == (Kind.BITS, 1, 1)


# Random streams.


def test_two_runs_draw_the_same_masks_and_the_world_outside_none():
    outside = torch.cuda.get_rng_state()
    masks = []
    for _ in range(2):
        with RandomStream(7, "cuda").active():
            masks.append(nn.functional.dropout(torch.ones(1000, device="cuda")))
    assert torch.equal(*masks)
    assert 0 < int((masks[0] == 0).sum()) < 1000
    assert torch.equal(torch.cuda.get_rng_state(), outside)


def test_one_draw_more_on_the_gpu_is_seen():
    cell = MatrixCell(task="digits_mlp")
    reference, candidate = (two_runs.cell_lane(cell, "backward", "cuda") for _ in range(2))

    def restless(run, window):
        torch.rand((), device="cuda")
        yield from training.train_step(run, window)

    result = compare_cell(cell, reference, replace(candidate, step=restless), "cuda")
    assert (result.outcome, result.step, result.phase, result.part) == (CellOutcome.DIFFERENT, 0, "forward", "rng")


def test_a_checkpoint_holds_the_gpus_random_state():
    run, file = two_runs.cell_lane(MatrixCell(), "backward", "cuda").run, BytesIO()
    training.checkpoint.save(run, file)
    before, drawn = generator_states(), torch.rand(5, device="cuda")
    training.checkpoint.resume(run, file)
    assert all(torch.equal(state, before[name]) for name, state in generator_states().items())
    assert torch.equal(torch.rand(5, device="cuda"), drawn)
    assert set(before) == {"cpu", "cuda"}


# What is waited for.


def many():
    return [{f"p{i}": torch.full((100,), float(i), device="cuda") for i in range(50)} for _ in range(2)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8, torch.bool])
def test_to_compare_many_tensors_is_one_wait(waits, dtype):
    ours, theirs = ([t.to(dtype) for t in side.values()] for side in many())
    pairs = ManyPairs(set())
    assert pairs.compare(ours, theirs) == ([], 5000)
    with waits() as told:
        assert pairs.compare(ours, theirs) == ([], 5000)
    assert len(told) <= 1
    theirs[17].view(torch.int8)[3] ^= 1
    assert pairs.compare(ours, theirs) == ([17], 4900)


CHANGES_OF_FORM = {
    "a dtype": lambda t: t.double(),
    "strides": lambda t: torch.stack([t, t], 1)[:, 0],
    "a shape": lambda t: t.view(10, 10),
    "a device": lambda t: t.cpu(),
    "a sparse tensor": lambda t: t.to_sparse(),
    "the sign of zero": lambda t: -t,
}


@pytest.mark.parametrize("what", CHANGES_OF_FORM)
def test_a_change_of_one_tensor_on_the_gpu_is_seen_and_so_is_its_end(what):
    ours, theirs = (list(side.values()) for side in many())
    kept, pairs = theirs[0], ManyPairs(set())
    assert pairs.compare(ours, theirs).doubtful == []
    theirs[0] = CHANGES_OF_FORM[what](kept.clone())
    assert pairs.compare(ours, theirs).doubtful == [0]
    theirs[0] = kept
    assert pairs.compare(ours, theirs).doubtful == []


def test_tensors_that_move_to_the_host_in_both_runs_are_compared_there():
    ours, theirs = (list(side.values()) for side in many())
    pairs = ManyPairs(set())
    assert pairs.compare(ours, theirs).doubtful == []
    for side in (ours, theirs):
        side[3].data = side[3].cpu()
    assert pairs.compare(ours, theirs).doubtful == []
    theirs[3][0] = 7.5
    theirs[4][0] = 7.5
    assert pairs.compare(ours, theirs).doubtful == [3, 4]


def test_a_phase_of_lockstep_waits_once_for_all_gradients(waits):
    cell = MatrixCell(task="digits_mlp")
    pair = [two_runs.cell_lane(cell, loop, "cuda") for loop in ("backward", "manual")]
    window = next(iter(two_runs.cell_windows(cell, "cuda")))
    assert not any(found.mismatches for found in lockstep(*pair, [window]))
    values = [LiveState(lane.run, lane.random.state, {}).at(training.Moment(training.Phase.CLIPPED)) for lane in pair]
    pairs = ManyPairs(set())
    for _ in range(2):
        with waits() as told:
            alike = compare_all(pairs, *values)
        assert alike.doubtful == {Part.GRADIENTS: []}
    assert len(told) == 1


def test_compared_each_in_turn_they_would_be_as_many(waits):
    ours, theirs = many()
    with waits() as told:
        compare(Part.PARAMETERS, ours, theirs)
    assert len(told) >= 50


def test_to_read_a_norm_is_one_wait(waits):
    parameters = [nn.Parameter(p) for p in many()[0].values()]
    for p in parameters:
        p.grad = torch.ones_like(p)
    with waits() as told:
        assert total_norm(parameters) == pytest.approx(5000**0.5)
    assert len(told) <= 1


def test_memory_of_one_address_on_the_host_and_on_a_gpu_is_not_confused():
    tensors = {f"{device} {i}": torch.zeros(5, device=device) for device in ("cpu", "cuda") for i in range(3)}
    tensors["a view"] = tensors["cuda 1"][2:]
    assert {name for name, owner in aliases(tensors, {}).items() if owner == "memory of cuda 1"} == {"a view"}
