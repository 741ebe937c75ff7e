import warnings
from contextlib import contextmanager

import pytest
import torch


@pytest.fixture
def waits():
    """A block in which is counted how often the GPU is waited for, as PyTorch itself tells it."""

    @contextmanager
    def counted():
        told = []
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_, **__: told.append(str(message))
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield told
            finally:
                torch.cuda.set_sync_debug_mode("default")
        told[:] = [message for message in told if "synchronizing CUDA operation" in message]

    return counted
