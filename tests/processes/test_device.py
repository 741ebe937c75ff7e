"""A device is made ready for comparisons, or refused in one sentence."""

import inspect
import os
from types import SimpleNamespace

import pytest
import torch

from gradparity.cli.arguments import exit_codes
from gradparity.errors import UserError, without_deterministic_form
from gradparity.processes.device import require, without_gpus
from gradparity.processes.failed_ranks import ended_by
from gradparity.processes.launch import _rank, launch
from gradparity.studies.matrix import run as matrix_run
from gradparity.studies.matrix.cell import MatrixCell


@pytest.fixture
def flags(monkeypatch):
    """The flags, which are put back afterwards."""
    benchmark = torch.backends.cudnn.benchmark
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield lambda: (torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.backends.cudnn.benchmark = benchmark


def test_the_cpu_needs_nothing(flags):
    require("cpu")
    assert flags() == (False, None)


def test_without_a_gpu_there_is_one_sentence(monkeypatch, flags):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"^device is cuda, but torch finds no GPU here; use --device cpu$"):
        require("cuda")
    assert flags() == (False, None)


def test_on_a_gpu_algorithms_are_asked_to_be_deterministic(monkeypatch, flags):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    torch.backends.cudnn.benchmark = True
    require("cuda")
    assert flags() == (True, ":4096:8")
    assert not torch.backends.cudnn.benchmark


def test_every_process_is_strict_not_only_warned(monkeypatch, flags):
    """With ``warn_only`` attention's gradients differ from run to run."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require("cuda")
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
    told = capsys.readouterr().err
    assert told.startswith(f"program: {operation.split()[-1]} has no deterministic form on this device")
    assert way in told
    assert told.endswith("or use --device cpu\n")
    assert told.count("\n") == 1


def test_torchs_own_alert_is_understood(flags):
    """As torch words it today: this operation has no deterministic form on the CPU either."""
    torch.use_deterministic_algorithms(True)
    with pytest.raises(RuntimeError) as raised:
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]), accumulate=False)
    assert without_deterministic_form(raised.value).startswith("put_ has no deterministic form")


def test_another_error_is_not_taken_for_one_of_these():
    @exit_codes("program")
    def main():
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        main()
    assert without_deterministic_form(ValueError(ALERT.format("x"))) is None


def test_a_cell_of_the_matrix_that_has_no_deterministic_form_is_refused_in_a_sentence(monkeypatch):
    def raises(*_):
        raise RuntimeError(ALERT.format("some_backward_cuda"))

    monkeypatch.setattr(matrix_run.make, "cell_lane", raises)
    result = matrix_run.run_cell(MatrixCell())
    assert (result.outcome, result.why[:40]) == (
        matrix_run.CellOutcome.REFUSED,
        "some_backward_cuda has no deterministic ",
    )


def test_a_rank_makes_its_device_ready():
    """The flags of the process that starts it are not those of a rank."""
    assert "require(device)" in inspect.getsource(_rank)


def gpus():
    return os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.is_available(), torch.accelerator.device_count()


def test_a_rank_on_the_cpu_finds_no_gpu():
    assert launch(gpus, 1) == [("", False, 0)]
    assert "without_gpus()" in inspect.getsource(_rank), "the fork server of these tests may see none itself"


def test_without_gpus_an_optimizer_asks_none(monkeypatch):
    """As if there was one, and each question put to it went wrong, as in a fork."""
    there = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1)
    monkeypatch.setattr(torch._C, "_accelerator_getAccelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch, "get_device_module", lambda *_: there)
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda *_: 1 / 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
    assert torch.accelerator.is_available()
    without_gpus()
    optimizer.step()
    assert (torch.accelerator.is_available(), gpus()[0]) == (False, "")


def test_a_rank_tells_an_operation_without_deterministic_form_in_one_sentence():
    with pytest.raises(RuntimeError) as raised:
        raise RuntimeError(ALERT.format("some_backward_cuda"))
    assert ended_by(raised.value).raised.startswith("some_backward_cuda has no deterministic form")
