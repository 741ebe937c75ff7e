"""Parts of a model that are neither parameters nor buffers, but change what it computes."""

from collections import deque
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Final

import numpy as np
from torch import Tensor, nn

from gradparity.parity.flatten_values import Unseen, Value, flatten
from gradparity.parity.model_tree import OF_EVERY_MODULE, SCALARS, ModelTree

_LONGEST: Final = 1_000
"""Largest length of a list or dict that is searched for tensors."""


def modes(tree: ModelTree, parameters: Mapping[str, Tensor]) -> dict[str, Value]:
    """Return the flags with unusual values, by name; all others have the value that :func:`usual` returns.

    These are ``a.training`` if module ``a`` is in eval mode, ``b.requires_grad`` if parameter ``b`` is frozen, and
    ``b.grad.requires_grad`` if its gradient is part of a graph.
    """
    return {**modes_of_modules(tree), **modes_of_parameters(parameters)}


def modes_of_modules(tree: ModelTree) -> dict[str, Value]:
    """Return the unusual flags of modules."""
    if all(map(_TRAINS, tree.modules.values())):
        return {}
    eval_mode = [name for name, module in tree.modules.items() if not module.training]
    return {f"{name}.training" if name else "training": False for name in eval_mode}


def modes_of_parameters(parameters: Mapping[str, Tensor]) -> dict[str, Value]:
    """Return the unusual flags of parameters and their gradients."""
    flags: dict[str, Value] = {}
    for name, p in parameters.items():
        if not p.requires_grad:
            flags[f"{name}.requires_grad"] = False
        if (gradient := p.grad) is not None and gradient.requires_grad:
            flags[f"{name}{_OF_GRADIENT}"] = True
    return flags


_TRAINS: Final = attrgetter("training")
_OF_GRADIENT: Final = ".grad.requires_grad"


def usual(flag: str) -> bool:
    """Return the value of a flag that :func:`modes` does not list."""
    return not flag.endswith(_OF_GRADIENT)


def extras(tree: ModelTree, *, extra_state: bool = True) -> dict[str, Value]:
    """Return tensors and NumPy arrays that are plain attributes of modules, and their ``get_extra_state``, by name.

    Both belong to ``Part.BUFFERS``. Lists, tuples, deques and dicts are searched for tensors, up to a thousand
    elements; a longer one that may hold tensors is :class:`Unseen`. Parameters, buffers, tensors that have a name
    already, and metrics of torchmetrics are left out. Only ``__dict__`` is read, so no property runs. Numbers and
    objects of other classes are ignored.

    Args:
        tree: the modules of a model, of which nothing is copied.
        extra_state: whether to call ``get_extra_state`` too, which runs the module's own code.
    """
    keepers = tree.keepers()
    if extra_state and any(map(_has_extra_state, tree.modules.values())):
        keepers = tree.modules
    if not keepers:
        return {}
    known = {id(t) for m in tree.modules.values() for t in (*m._parameters.values(), *m._buffers.values())}
    found: dict[str, Value] = {}
    for name, module in keepers.items():
        if _measures(module):
            continue
        prefix = f"{name}." if name else ""
        attributes = vars(module)
        for key in [key for key in attributes if key not in OF_EVERY_MODULE]:
            if not isinstance(value := attributes[key], SCALARS):
                for path, leaf in _held(f"{prefix}{key}", value, 0):
                    if id(leaf) not in known:
                        known.add(id(leaf))
                        found |= {path: leaf} if isinstance(leaf, Tensor | Unseen) else dict(flatten(path, leaf))
        if extra_state and _has_extra_state(module):
            found |= _extra_state(f"{prefix}_extra_state", module)
    return found


def _measures(module: nn.Module) -> bool:
    """Return whether ``module`` is a metric of torchmetrics, whose state measures the training without changing it."""
    return any(base.__module__.startswith("torchmetrics.") for base in type(module).__mro__)


def _has_extra_state(module: nn.Module) -> bool:
    return type(module).get_extra_state is not nn.Module.get_extra_state


def _extra_state(name: str, module: nn.Module) -> dict[str, Value]:
    try:
        state = module.get_extra_state()
    except Exception as error:  # an error in the module's code must not end the user's training
        return {name: Unseen(f"extra state that raises {type(error).__name__}")}
    return dict(flatten(name, state))


def _held(name: str, value: object, depth: int) -> Iterator[tuple[str, Tensor | np.ndarray | Unseen]]:
    """Yield the tensors and arrays in ``value``."""
    if isinstance(value, Tensor | np.ndarray):
        yield name, value
    elif isinstance(value, list | tuple | deque | dict) and depth < 4:
        if len(value) > _LONGEST:
            first = next(iter(value.values() if isinstance(value, dict) else value))
            if not isinstance(first, SCALARS):
                yield name, Unseen(f"{type(value).__qualname__} of {len(value)}")
        elif isinstance(value, dict):
            for index, (key, item) in enumerate(list(value.items())):
                yield from _held(f"{name}.{key if isinstance(key, str | int) else index}", item, depth + 1)
        else:
            for index, item in enumerate(list(value)):
                yield from _held(f"{name}[{index}]", item, depth + 1)
