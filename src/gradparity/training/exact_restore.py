"""State that ``load_state_dict`` alone does not bring back, or not bit for bit."""

import copy
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load ``state`` with its own dtypes: ``load_state_dict`` casts all of it but counters to those of the parameters.

    A bf16 parameter may have moments in fp32, which would lose digits.
    """
    optimizer.load_state_dict(state)
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    numbers = (number for group in state["param_groups"] for number in group["params"])
    for p, number in zip(parameters, numbers, strict=True):
        saved = state["state"].get(number, {})
        for name in saved.keys() & optimizer.state[p].keys() if saved else ():
            optimizer.state[p][name] = as_saved(saved[name], optimizer.state[p][name])


def as_saved(saved: Any, loaded: Any) -> Any:
    """Return ``saved`` on the devices of ``loaded``."""
    if isinstance(saved, Tensor) and isinstance(loaded, Tensor):
        return saved.to(loaded.device)
    if isinstance(saved, dict):
        return {name: as_saved(part, loaded[name]) for name, part in saved.items()}
    if type(saved) in (list, tuple):
        return type(saved)(map(as_saved, saved, loaded))
    return loaded


def buffers_outside(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that ``model.state_dict()`` leaves out, as those registered with ``persistent=False``."""
    inside = model.state_dict().keys()
    return {name: buffer for name, buffer in named_buffers(model) if name not in inside}


def load_buffers(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Bring back what :func:`buffers_outside` returned, in place where that is possible: two modules may share one."""
    there = dict(named_buffers(model))
    for name, saved in buffers.items():
        loaded = there.get(name)
        if loaded is not None and (loaded.shape, loaded.dtype) == (saved.shape, saved.dtype):
            with torch.no_grad():
                loaded.copy_(saved)
        else:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, saved)


def named_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Return all buffers by all their names."""
    return model.named_buffers(remove_duplicate=False)


def plain(value: Any) -> Any:
    """Return ``value`` with Python's numbers in place of NumPy's float64 and integers, which are the same numbers.

    ``lr=np.float64(0.1)`` is one. A file that is read without running code cannot hold it.
    """
    if isinstance(value, dict):
        made = copy.copy(value)
        for name, part in value.items():
            made[name] = plain(part)
        return made
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, Integral) else value
