import socket

import pytest
import torch

from gradparity.device import require

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_test():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _a_gpu_where_one_is_needed(request):
    if request.node.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU here")


@pytest.fixture
def on_a_gpu():
    """What makes trainings there repeatable, and afterwards as it was."""
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    require("cuda")
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark


@pytest.fixture
def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
