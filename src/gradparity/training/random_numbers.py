"""The global streams of random numbers, as values that a checkpoint can hold."""

import random
import sys
from typing import Any

import torch


def random_state() -> dict[str, Any]:
    """Return the states of the streams of torch (CPU and CUDA), Python, and NumPy if it is imported."""
    state = {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "python": random.getstate(),
    }
    if numpy := sys.modules.get("numpy"):
        state["numpy"] = without_arrays(numpy.random.get_state(legacy=False))
    return state


def restore_random(state: dict[str, Any]) -> None:
    """Restore the streams to the states that :func:`random_state` returned."""
    torch.set_rng_state(state["cpu"])
    torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    if (numpy := sys.modules.get("numpy")) and "numpy" in state:
        numpy.random.set_state(state["numpy"])


def without_arrays(value: Any) -> Any:
    """Return ``value`` with lists in place of NumPy's arrays, which ``weights_only`` does not load."""
    if isinstance(value, dict):
        return {name: without_arrays(part) for name, part in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value
