"""Search of autograd's graph for the leaves whose gradients a backward will write.

It starts at a loss, before the loss is differentiated.
"""

from collections.abc import Iterable, Set
from enum import Enum
from typing import Any

from torch import Tensor
from torch.autograd.function import BackwardCFunction


class Reach(Enum):
    """The answer to the question: does a backward reach one of the given leaves?"""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """The graph contains a Function written in Python. It may run a backward of its own, as a reentrant checkpoint
    does."""


def reach(roots: Iterable[Any], leaves: Set[int]) -> Reach:
    """Return whether a backward from ``roots`` reaches a leaf whose ``id`` is in ``leaves``.

    The search ends at the first such leaf, which in most graphs is a few nodes from the loss. Nothing is computed.

    Args:
        roots: tensors, or ``GradientEdge`` objects.
        leaves: the ``id`` of each tensor that is trained.
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
        if id(getattr(node, "variable", None)) in leaves:  # only AccumulateGrad, the node of a leaf, has one
            return Reach.YES
        if isinstance(node, BackwardCFunction):
            found = Reach.UNKNOWN
        waiting += (following for following, _ in node.next_functions)
    return found
