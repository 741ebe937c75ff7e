"""Autograd's graph, walked from a loss before it is differentiated, to see whose gradient a backward will write."""

from collections.abc import Iterable, Set
from enum import Enum
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction


class Reach(Enum):
    """Whether a backward reaches one of some leaves."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """There is a Function written in Python in the graph, which may run a backward of its own, as a reentrant
    checkpoint does."""


def reach(roots: Iterable[Any], leaves: Set[int]) -> Reach:
    """Return whether a backward from ``roots`` reaches a leaf whose ``id`` is in ``leaves``.

    It ends at the first that it finds, which in most graphs is a few nodes from the loss. Nothing is computed.

    Args:
        roots: tensors, or ``GradientEdge``.
        leaves: identities of the tensors that are trained.
    """
    found, seen, waiting = Reach.NO, set[Any](), list[Any]()
    for root in roots:
        if isinstance(root, Tensor) and root.grad_fn is None and id(root) in leaves:
            return Reach.YES
        waiting.append(root.grad_fn if isinstance(root, Tensor) else getattr(root, "node", None))
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if id(getattr(node, "variable", None)) in leaves:  # AccumulateGrad, the node of a leaf, has one
            return Reach.YES
        if isinstance(node, BackwardCFunction):
            found = Reach.UNKNOWN
        waiting += (following for following, _ in node.next_functions)
    return found
