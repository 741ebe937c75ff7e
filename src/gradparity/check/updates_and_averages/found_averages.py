"""The search for averages of the weights in what a loop's functions hold: in variables, objects and containers."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import FrameType, FunctionType, MethodType, ModuleType
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gradparity.auditing.watching.user_lines import of_the_user
from gradparity.check.running.users_stack import users_frames

Shadow: TypeAlias = tuple[str, dict[str, Tensor]]
"""A variable, and the tensors in it that stand for parameters, by the name of the parameter."""

_PLAIN = (
    Tensor,
    Optimizer,
    torch.amp.GradScaler,
    LRScheduler,
    type,
    ModuleType,
    FunctionType,
    MethodType,
    FrameType,
    str,
    bytes,
    int,
    float,
    complex,
    type(None),
)
"""Types of values that hold no average."""
_DEEPEST, _MOST = 6, 2000
"""Containers around an average, and values that are looked at, at most."""


def shadows_on_the_stack(model: nn.Module, parameters: Mapping[str, Tensor], main: str) -> list[Shadow]:
    """Return, by variable, tensors that stand for the parameters in what the user's functions hold.

    Args:
        model: the model that is trained, which is no average.
        parameters: its parameters by name.
        main: the one that every average has.
    """
    found: dict[int, Shadow] = {}
    seen = {id(module) for module in model.modules()}
    for frame in reversed(list(users_frames())):  # from the loop in, so that a variable keeps its name
        level = list(frame.f_locals.items())
        if frame.f_globals.get("__file__") and of_the_user(frame.f_globals["__file__"]):
            level += [(name, value) for name, value in list(frame.f_globals.items()) if not name.startswith("__")]
        for depth in range(_DEEPEST):
            deeper: list[tuple[str, object]] = []
            for name, value in level:
                if isinstance(value, _PLAIN) or id(value) in seen or len(seen) > _MOST:
                    continue
                seen.add(id(value))
                with suppress(Exception):  # of objects that answer in their own way
                    tensors = _standing_for(value, parameters, main)
                    if tensors:
                        found.setdefault(id(tensors[main]), (name, tensors))
                    elif depth < _DEEPEST - 1:
                        deeper += _inside(name, value)
            level = deeper
    return list(found.values())


def _standing_for(value: object, parameters: Mapping[str, Tensor], main: str) -> dict[str, Tensor]:
    """Return the tensors in a value that stand for the parameters; empty if it is no average."""
    tensors: Mapping[object, object] = {}
    if isinstance(value, nn.Module):
        tensors = dict(value.named_parameters())
    elif isinstance(value, Mapping):
        tensors = value
    elif isinstance(value, list | tuple) and len(value) == len(parameters):
        tensors = dict(zip(parameters, value, strict=True))
    found = {}
    for name, p in parameters.items():
        one = next((tensors[key] for key in (name, f"module.{name}") if key in tensors), None)
        if isinstance(one, Tensor) and one.shape == p.shape and one.layout == torch.strided:
            found[name] = one
    return found if main in found and found[main].data_ptr() != parameters[main].data_ptr() else {}


def _inside(name: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield the values in a container or an object of a user's class, each with its name in Python."""
    if isinstance(value, nn.Module):
        return
    if isinstance(value, dict):
        yield from ((f"{name}[{key!r}]", one) for key, one in list(value.items()) if isinstance(key, str | int))
    elif isinstance(value, list | tuple):
        yield from ((f"{name}[{number}]", one) for number, one in enumerate(value))
    elif hasattr(value, "__dict__"):
        yield from ((f"{name}.{key}", one) for key, one in list(vars(value).items()))
