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


def rounded_to(gradients: Sequence[Tensor]) -> str:
    """Return the half precision that represents all these gradients of full precision; empty if none does."""
    full = [g.detach() for g in gradients if g.layout == torch.strided and g.dtype in (torch.float32, torch.float64)]
    if len(full) < len(gradients) or not any(bool(g.any()) for g in full):
        return ""
    for half in HALVES:
        if all(torch.equal(g, g.to(half).to(g.dtype)) for g in full):
            return str(half).removeprefix("torch.")
    return ""
