"""Facts that gradients do not show: what the graph of a backward is made of, and averages that follow the weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradparity.auditing.watching.user_lines import Line


@dataclass(frozen=True)
class Signs:
    """Signs of one backward, for one optimizer."""

    leaves: frozenset[int] = frozenset()
    """The positions of the optimizer's parameters that the graph leads to."""
    touched: frozenset[int] = frozenset()
    """Those that enter the graph only as the sum or mean of all their elements, as in ``0 * p.sum()``."""
    casts: frozenset[str] = frozenset()
    """The dtypes of half precision to which the graph casts."""
    stale: int = 0
    """The number of casts of weights that were made before the weights were last written."""
    squared: bool = False
    """True if a loss is multiplied by itself on its way to what is differentiated."""
    drew: bool = False
    """True if random numbers were drawn while the backward ran."""
    recounted: int = 0
    """The number of batches that batch normalization counted while the backward ran."""
    opaque: bool = False
    """True if a part of the graph hides its dtypes: it was compiled, or a reentrant checkpoint."""
    rounded: str = ""
    """The half precision to which gradients in ``p.grad`` were rounded since the backward before; empty if none."""


NO_SIGNS = Signs()


@dataclass(frozen=True)
class AverageMove:
    """An average that moved towards the weights."""

    optimizer: int
    """The number of the optimizer whose weights it follows."""
    name: str
    made: int
    """The steps that were made since it moved before."""
    skipped: int
    """The steps that the scaler has skipped since."""
    backwards: int
    """The backwards since."""
    step: int
    line: Line
    """The line of the event before the move."""


@dataclass(frozen=True)
class InputGradient:
    """One call of ``autograd.grad`` by an input, for all outputs of a model that trains."""

    optimizers: frozenset[int]
    """The optimizers that hold a parameter of the graph, by their number."""
    after: int
    """The number of the last event before it."""
    line: Line


@dataclass
class GraphSigns:
    """Signs of a graph, gathered node by node. Nothing is computed, and no saved tensor is unpacked."""

    casts: set[str] = field(default_factory=set)
    opaque: bool = False
    stale: set[int] = field(default_factory=set)
    """The ``id`` of each weight that was written after the cast which a new forward reads."""
    touched: set[int] = field(default_factory=set)
    """The ``id`` of each leaf that a sum or mean over all its elements reads."""
    used: set[int] = field(default_factory=set)
    """The ``id`` of each leaf that any other node reads."""
    newly_read: set[Any] = field(default_factory=set)
    """The casts that a node reads which no earlier backward has passed: it is of a new forward."""

    def visit(self, node: Any, name: str) -> None:
        """Take up one node of the graph."""
        if name == _CAST:
            self._cast(node)
        self.opaque |= name.startswith(("CompiledFunction", "CheckpointFunction"))
        whole = name in ("SumBackward0", "MeanBackward0")
        for following, _ in node.next_functions:
            leaf = getattr(following, "variable", None)
            if leaf is not None:
                (self.touched if whole and leaf.numel() > 1 else self.used).add(id(leaf))
            elif following is not None and following.name() == _CAST and _SEEN not in node.metadata:
                node.metadata[_SEEN] = True
                self.newly_read.add(following)

    def _cast(self, node: Any) -> None:
        given = getattr(node, "_input_metadata", ())
        if not given or given[0].dtype not in HALVES:
            return
        self.casts.add(str(given[0].dtype).removeprefix("torch."))
        leaf = getattr(node.next_functions[0][0], "variable", None)
        if leaf is not None and leaf.requires_grad:
            version = node.metadata.setdefault(_CAST_AT, leaf._version)
            if version != leaf._version and node in self.newly_read:
                self.stale.add(id(leaf))


HALVES = (torch.float16, torch.bfloat16)

_CAST, _SEEN = "ToCopyBackward0", "gradparity seen"
_CAST_AT = "gradparity cast at version"
"""The key in a node's metadata for the version of the weight when the cast of it was first seen."""


def is_squared(root: Any) -> bool:
    """Return whether, on the way from ``root`` to its only loss, something is multiplied by itself."""
    node = root.grad_fn if isinstance(root, Tensor) else getattr(root, "node", None)
    squared = False
    while node is not None:
        following = [f for f, _ in node.next_functions if f is not None]
        if "Loss" in node.name() or "CrossEntropy" in node.name():
            return squared
        if len(set(following)) != 1:
            return False
        squared |= node.name() == "MulBackward0" and len(following) == 2
        node = following[0]
    return False


def rounding_of(gradient: Tensor) -> tuple[Any, ...]:
    """Return whether a gradient is not zero, and whether it differs from its rounding to each half precision.

    These are tensors on its device; ``None`` each if it is not of full precision.
    """
    if gradient.layout != torch.strided or gradient.dtype not in (torch.float32, torch.float64):
        return (None,) * (1 + len(HALVES))
    one = gradient.detach()
    return one.any(), *((one != one.to(half)).any() for half in HALVES)


def rounded_to(written: Sequence[bool], *found: float | None) -> str:
    """Return the half precision that represents all gradients that were written; empty if none does.

    Args:
        written: whether each gradient was.
        found: the numbers of :func:`rounding_of` for each, one after the other.
    """
    count = 1 + len(HALVES)
    each = [found[count * i : count * i + count] for i, new in enumerate(written) if new]
    if any(None in one for one in each) or not any(one[0] for one in each):
        return ""
    fits = [half for k, half in enumerate(HALVES, start=1) if not any(one[k] for one in each)]
    return str(fits[0]).removeprefix("torch.") if fits else ""
