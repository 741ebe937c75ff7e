"""Fixtures of all tests. What takes long to import is imported in them: the process that hands out tests needs none of it."""

import gc
import os
import shutil
import tempfile

import pytest


def pytest_configure(config):
    """GPUs are there for ``-m cuda`` alone: once gradients were computed where there is one, no fork computes any.

    The cache is a new one, which the processes of this session share: no test depends on what was kept before.
    """
    if config.option.markexpr != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        os.environ["GRADPARITY_CACHE"] = tempfile.mkdtemp(prefix="gradparity-cache-")


def pytest_unconfigure():
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["GRADPARITY_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Mark each slow test as long too."""
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="module", autouse=True)
def _what_is_there_stays():
    """Import what trainings import late, so that no test and no fork of this process does.

    A garbage collection would look through all that was imported, and kept by tests before; several tests collect
    garbage at each step.
    """
    import torch._dynamo

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_test():
    import torch

    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _a_gpu_where_one_is_needed(request):
    import torch

    if request.node.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("torch finds no GPU here")


@pytest.fixture
def on_a_gpu():
    """What makes trainings there repeatable, and afterwards as it was."""
    import torch

    from gradparity.processes.determinism import prepare_device

    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    prepare_device("cuda")
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.benchmark = benchmark
