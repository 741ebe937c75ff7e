"""Parameters that get gradients though no optimizer holds them, and the way in which they came to be outside."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from torch import Tensor, nn

from gradparity.auditing.watching.user_lines import Line


class Origin(Enum):
    """The way in which a parameter came to be in no optimizer, as far as it shows."""

    UNKNOWN = auto()
    LATE = auto()
    """It was registered in its module after the optimizer of that model had been built."""
    THAWED = auto()
    """It required no gradient when the optimizer of its model was built, and does now."""
    IN_LIST = auto()
    """Its module, or the parameter itself, stands in a plain list, tuple or dict of a module."""
    TENSOR = auto()
    """It is no ``nn.Parameter`` but a plain tensor of its module, which ``parameters()`` does not list."""
    ALONE = auto()
    """It is an ``nn.Parameter`` of no module, such as the weights of several losses."""


@dataclass(frozen=True)
class Outsider:
    """A parameter that gets gradients though no optimizer holds it."""

    name: str
    shape: tuple[int, ...]
    line: Line
    """The backward that reached it first."""
    times: int
    origin: Origin
    beside: str
    """The name of a parameter of the same model that an optimizer holds; empty if none does."""


@dataclass(frozen=True)
class NotFrozen:
    """A module with an attribute ``requires_grad = False``, which freezes nothing."""

    name: str
    line: Line
    """The backward that reached its parameters first."""
    times: int


@dataclass(frozen=True)
class Kept:
    """A module in a plain list of another one."""

    owner: nn.Module
    name: str
    """The name of the list, in its owner."""
    module: nn.Module


def kept_in_lists(root: nn.Module) -> Iterator[Kept]:
    """Yield the modules that stand in plain lists, tuples or dicts of the modules in ``root``, if there are several."""
    for owner in root.modules():
        for name, value in vars(owner).items():
            if name.startswith("_"):  # the tables of nn.Module itself
                continue
            members = list(value.values()) if isinstance(value, dict) else value
            if isinstance(members, (list, tuple)):
                modules = [m for m in members if isinstance(m, nn.Module)]
                if len(modules) > 1:
                    yield from (Kept(owner, name, module) for module in modules)


def tensors_kept(root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the leaves that require a gradient and stand in an attribute, list, tuple or dict of a module in ``root``.

    Registered parameters and buffers are not among them. Each comes with the name of the attribute.
    """
    for owner in root.modules():
        for name, value in vars(owner).items():
            if name.startswith("_"):
                continue
            members = list(value.values()) if isinstance(value, dict) else value
            many = isinstance(members, (list, tuple))
            for member in members if isinstance(members, (list, tuple)) else [members]:
                if isinstance(member, Tensor) and member.requires_grad and member.is_leaf:
                    yield f"{name}[...]" if many else name, member
