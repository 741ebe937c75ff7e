"""A device is prepared for comparisons, or refused in one sentence."""

import inspect
import os
from types import SimpleNamespace

import pytest
import torch

from gradparity.cli.exit_codes import exit_codes
from gradparity.errors import UserError, without_deterministic_form
from gradparity.processes.determinism import hide_gpus, prepare_device, prepare_worker
from gradparity.processes.failed_ranks import end_of_rank
from gradparity.processes.launch import _run_rank, launch
from gradparity.studies.matrix import run as matrix_run
from gradparity.studies.matrix.cell import MatrixCell


@pytest.fixture
def flags(monkeypatch):
    """Return the flags; they are restored afterwards."""
    benchmark = torch.backends.cudnn.benchmark
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield lambda: (torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.benchmark = benchmark


def test_the_cpu_needs_nothing(flags):
    prepare_device("cpu")
    assert flags() == (False, None)


def test_cuda_without_a_gpu_gets_one_sentence(monkeypatch, flags):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^device is cuda, but torch finds no GPU here; use --device cpu$"):
        prepare_device("cuda")
    assert flags() == (False, None)


def test_a_gpu_gets_deterministic_algorithms(monkeypatch, flags):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    torch.backends.cudnn.benchmark = True
    prepare_device("cuda")
    assert flags() == (True, ":4096:8")
    assert not torch.backends.cudnn.benchmark


def test_an_operation_without_deterministic_form_raises_not_only_warns(monkeypatch, flags):
    """With ``warn_only``, attention's gradients would differ from run to run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    prepare_device("cuda")
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


ALERT = (
    "{} does not have a deterministic implementation, but you set 'torch.use_deterministic_algorithms(True)'. "
    "You can turn off determinism just for this operation, or you can use the 'warn_only=True' option."
)


@pytest.mark.parametrize(
    ("operation", "way"),
    [
        ("cumsum_cuda_kernel", "replace it in the model or loss"),
        ("Memory Efficient attention defaults to a non-deterministic algorithm. _scaled_dot_product_attention", "MATH"),
    ],
)
def test_an_operation_without_deterministic_form_is_one_sentence_with_exit_code_2(operation, way, capsys):
    @exit_codes("program")
    def main():
        raise RuntimeError(ALERT.format(operation))

    assert main() == 2
    output = capsys.readouterr().err
    assert output.startswith(f"program: {operation.split()[-1]} has no deterministic form on this device")
    assert way in output
    assert output.endswith("or use --device cpu\n")
    assert output.count("\n") == 1


def test_the_error_of_torch_is_recognized(flags):
    """This operation has no deterministic form on the CPU either, so torch's own sentence is read."""
    torch.use_deterministic_algorithms(True)
    with pytest.raises(RuntimeError) as raised:
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]), accumulate=False)
    assert without_deterministic_form(raised.value).startswith("put_ has no deterministic form")


def test_other_errors_are_not_taken_for_it():
    @exit_codes("program")
    def main():
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        main()
    assert without_deterministic_form(ValueError(ALERT.format("x"))) is None


def test_a_matrix_cell_without_deterministic_form_is_refused_in_one_sentence(monkeypatch):
    def raises(*_):
        raise RuntimeError(ALERT.format("some_backward_cuda"))

    monkeypatch.setattr(matrix_run.make, "cell_lane", raises)
    result = matrix_run.run_cell(MatrixCell())
    assert (result.outcome, result.why[:40]) == (
        matrix_run.CellOutcome.REFUSED,
        "some_backward_cuda has no deterministic ",
    )


@pytest.mark.parametrize("worker", [_run_rank, matrix_run._begin_worker])
def test_a_rank_and_a_worker_of_the_matrix_prepare_their_device(worker):
    """The flags of the process that starts them do not apply in them."""
    assert "prepare_worker(device)" in inspect.getsource(worker)


@pytest.mark.parametrize(("device", "prepared"), [("cuda", ["prepare_device"]), ("cpu", ["hide_gpus"])])
def test_a_worker_is_deterministic_on_a_gpu_and_finds_none_on_the_cpu(device, prepared, monkeypatch):
    calls = []
    for name in ("prepare_device", "hide_gpus"):
        monkeypatch.setattr(f"gradparity.processes.determinism.{name}", lambda *_, name=name: calls.append(name))
    torch.set_num_threads(2)
    prepare_worker(device)
    assert (calls, torch.get_num_threads()) == (prepared, 1)


def gpus():
    return os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.is_available(), torch.accelerator.device_count()


def test_a_rank_on_the_cpu_finds_no_gpu():
    assert launch(gpus, 1) == [("", False, 0)]
    assert "prepare_worker(device)" in inspect.getsource(_run_rank), "the fork server of these tests may see none"


def test_with_gpus_hidden_an_optimizer_asks_none(monkeypatch):
    """Pretend that there is one on which every query fails, as in a fork."""
    there = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1)
    monkeypatch.setattr(torch._C, "_accelerator_getAccelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch, "get_device_module", lambda *_: there)
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda *_: 1 / 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    assert torch.accelerator.is_available()
    hide_gpus()
    optimizer.step()
    assert (torch.accelerator.is_available(), gpus()[0]) == (False, "")


def test_a_rank_reports_an_operation_without_deterministic_form_in_one_sentence():
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError(ALERT.format("some_backward_cuda"))
    assert end_of_rank(raised.value).raised.startswith("some_backward_cuda has no deterministic form")
