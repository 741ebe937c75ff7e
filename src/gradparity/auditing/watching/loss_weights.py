"""The weight of every token, read off the graph of a loss while it is differentiated.

A hook on a loss node sees the derivative of what is differentiated by that loss. With the node's own reduction and
number of tokens, that gives the weight of one token. Nothing is computed in the loop's own tensors.
"""

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradparity.auditing.events import LossWeights
from gradparity.auditing.watching.graph_facts import HALVES, GraphSigns
from gradparity.auditing.watching.later import later, together
from gradparity.auditing.watching.loss_inputs import LOOKED_AT, Misfit, misfit
from gradparity.auditing.watching.saved_tensors import saved
from gradparity.trace.isolation import aside, unnoticed

MEAN, SUM = 1, 2
"""PyTorch's numbers for the reductions of a loss (``at::Reduction``)."""

_NODES = {
    "NllLossBackward0",
    "NllLoss2DBackward0",
    "MseLossBackward0",
    "BinaryCrossEntropyBackward0",
    "BinaryCrossEntropyWithLogitsBackward0",
    "SmoothL1LossBackward0",
    "HuberLossBackward0",
}

MOST_NODES = 200_000
"""Nodes of a graph that are looked at, at most."""

SCALED = "gradparity scaled"
"""The key in a node's metadata for the loss scale that it multiplies with."""


@dataclass
class Graph:
    """The result of a walk through a graph."""

    leaves: list[Tensor] = field(default_factory=list)
    losses: list[Any] = field(default_factory=list)
    """The loss nodes, in the order of the walk."""
    scales: tuple[Any, ...] = ()
    """The loss scales on the way to a leaf, the longest way if several were met: losses side by side count once."""
    half: bool = False
    """True if there is a cast, or a loss or leaf of half precision."""
    signs: GraphSigns = field(default_factory=GraphSigns)
    misfits: set[Misfit] = field(default_factory=set)
    nodes: Set[Any] = frozenset()
    """All nodes that were met."""
    paddings: set[tuple[int, int]] = field(default_factory=set)
    """For each embedding with a ``padding_idx``: the size of its vocabulary, and that index."""


def walked(roots: tuple[Any, ...]) -> Graph:
    """Walk the graph behind ``roots``, which are tensors or ``GradientEdge`` objects, without computing anything."""
    found, seen, waiting = Graph(), set[Any](), list[tuple[Any, tuple[Any, ...]]]()
    for root in roots:
        if isinstance(root, Tensor) and root.grad_fn is None:
            found.leaves.append(root)
        waiting.append((root.grad_fn if isinstance(root, Tensor) else getattr(root, "node", None), ()))
    while waiting:
        node, scales = waiting.pop()
        if node is None or node in seen:
            continue
        if len(seen) > MOST_NODES:
            break
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found.leaves.append(leaf)
            found.half |= leaf.dtype in HALVES
        name = node.name()
        found.signs.visit(node, name)
        found.half |= name == "ToCopyBackward0"
        if name in _NODES:
            found.losses.append(node)
        if name in LOOKED_AT and (wrong := misfit(node)) is not None:
            found.misfits.add(wrong)
        if name == "EmbeddingBackward0" and (padding := _padding(node)) is not None:
            found.paddings.add(padding)
        if "Mul" in name and SCALED in node.metadata:
            scales = (*scales, node.metadata[SCALED])
            found.scales = max(found.scales, scales, key=len)
        waiting += ((following, scales) for following, _ in node.next_functions)
    found.nodes = seen
    return found


def _padding(node: Any) -> tuple[int, int] | None:
    """Return the size of an embedding's vocabulary and its ``padding_idx``; ``None`` without one."""
    try:
        size, index = int(node._saved_weight_sym_argsize_0), int(node._saved_padding_idx)
    except (RuntimeError, AttributeError, TypeError):  # of another version of torch
        return None
    return (size, index) if 0 <= index < size else None


@dataclass
class Reading:
    """Hooks on the loss nodes of one backward, and what they have seen."""

    nodes: list[Any]
    scales: Sequence[Any]
    """The loss scales in the graph."""
    paddings: Set[tuple[int, int]] = frozenset()
    """The vocabulary and ``padding_idx`` of each embedding in the graph."""
    _handles: list[Any] = field(default_factory=list)
    _seen: list[Callable[[], Any]] = field(default_factory=list)
    _met: int = 0
    """The number of losses that the backward has met: more than were seen, if memory was short."""

    def __enter__(self) -> "Reading":
        """Set the hooks."""
        for node in self.nodes:
            about = _about(node, self.paddings)
            if about is not None:
                self._handles.append(node.register_prehook(self._hook(node.name(), about)))
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the hooks: the loop may differentiate the graph again."""
        for handle in self._handles:
            handle.remove()

    def weights(self) -> Any:
        """Return what was seen, once the backward is over: a :class:`LossWeights` of each loss."""
        return later(together, *(read() for read in self._seen)) if len(self._seen) == self._met else ()

    def _hook(self, name: str, about: "_About") -> Callable[[tuple[Tensor | None, ...]], None]:
        def look(gradients: tuple[Tensor | None, ...]) -> None:
            incoming = gradients[0]
            with unnoticed(), aside():  # autograd calls it, outside the guard
                if incoming is not None:
                    self._met += 1
                    kept = incoming.detach().clone()  # a hook of the loop may change it in place
                    self._seen.append(lambda: _weights(name, about, kept, self.scales))

        return look


@dataclass(frozen=True)
class _About:
    """Facts that a loss node has saved of its forward."""

    reduction: int
    tokens: Tensor | int
    elements: int
    divisor: Tensor | float
    weighted: bool
    half: bool
    padding: Tensor | int = 0
    in_runs: Tensor | int = 0
    ignored: Tensor | None = None
    """True for each element that ``ignore_index`` leaves out, if the loss is not reduced."""


def _about(node: Any, paddings: Set[tuple[int, int]]) -> _About | None:
    """Return what ``node`` has saved; ``None`` if it cannot be read, such as after it was freed."""
    try:
        with torch.no_grad():
            reduction = int(node._saved_reduction)
            numbers: Tensor = saved(node, "self")
            half = numbers.dtype in HALVES
            weighted = any(
                hasattr(node, f"_raw_saved_{name}") and saved(node, name) is not None
                for name in ("weight", "pos_weight")
            )
            if node.name().startswith("NllLoss"):
                target: Tensor = saved(node, "target")
                tokens = (target != node._saved_ignore_index).sum()
                divisor = saved(node, "total_weight") if reduction == MEAN else 1.0
                ignored = None if reduction in (MEAN, SUM) else target == node._saved_ignore_index
                counted = () if weighted or reduction not in (MEAN, SUM) else _padded(node, target, paddings)
                return _About(reduction, tokens, target.numel(), divisor, weighted, half, *(counted or (0, 0)), ignored)
            elements = numbers.numel()
            return _About(reduction, elements, elements, float(elements) if reduction == MEAN else 1.0, weighted, half)
    except (RuntimeError, AttributeError):
        return None


def _padded(node: Any, target: Tensor, paddings: Set[tuple[int, int]]) -> tuple[Tensor | int, Tensor | int]:
    """Return the number of targets that are padding of an embedding with these classes, and of those in runs."""
    for classes, index in paddings:
        shape: torch.Size = saved(node, "self").shape
        if classes == shape[min(1, len(shape) - 1)] and index != node._saved_ignore_index:
            is_padding = (target == index).flatten()
            return is_padding.sum(), (is_padding[1:] & is_padding[:-1]).sum()
    return 0, 0


def _weights(name: str, about: _About, incoming: Tensor, scales: Sequence[Any]) -> Any:
    """Return the :class:`LossWeights` of a loss node, from the derivative by its result."""
    if about.reduction in (MEAN, SUM):
        counted = incoming, about.tokens, about.divisor, about.padding, about.in_runs
        return later(partial(_of_reduced, name, about), *counted, *scales)
    numbers = incoming.double().flatten()
    there = numbers != 0
    if about.ignored is not None:
        there &= ~about.ignored.flatten()
    if not numbers.numel():
        return LossWeights(name, 0, about.elements, None, 0.0, False, about.half, about.weighted)
    some = numbers.where(there, 0)
    least, most = (numbers.where(there, limit) for limit in (math.inf, -math.inf))
    sums = there.sum(), least.amin(), most.amax(), some.sum()
    return later(partial(_of_elements, name, about), *sums, *scales)


def _of_reduced(
    name: str,
    about: _About,
    incoming: float,
    tokens: float,
    divisor: float,
    padding: float,
    in_runs: float,
    *scales: float,
) -> LossWeights:
    each, count = incoming / math.prod(scales, start=1.0) / (divisor or 1.0), int(tokens)
    runs = int(padding), int(in_runs)
    mean = about.reduction == MEAN
    return LossWeights(name, count, about.elements, each, each * count, mean, about.half, about.weighted, *runs)


def _of_elements(
    name: str, about: _About, count: float, least: float, most: float, total: float, *scales: float
) -> LossWeights:
    scale = math.prod(scales, start=1.0)
    alike = count > 0 and abs(most - least) <= 1e-5 * max(abs(least), abs(most))
    same = most / scale if alike else None
    return LossWeights(name, int(count), about.elements, same, total / scale, False, about.half, about.weighted)


_DIFFERENTIATED = "gradparity differentiated"


def marked_again(losses: Sequence[Any]) -> bool:
    """Return whether one of these loss nodes was differentiated into ``p.grad`` before, and mark all of them."""
    found = False
    for node in losses:
        found |= _DIFFERENTIATED in node.metadata
        node.metadata[_DIFFERENTIATED] = True
    return found
