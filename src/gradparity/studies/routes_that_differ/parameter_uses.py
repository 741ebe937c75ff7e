"""Gradients added up use by use, which predict the summed loss, and a count of each parameter's uses in a loss.

Autograd walks a graph from the newest node to the oldest. The terms that arrive at a parameter are added in that
order, one term for each use, before the sum becomes its gradient (``InputBuffer`` in PyTorch's ``csrc/autograd``).
Over the graph of one microbatch, this gives the microbatch's gradient. Over the graph of a whole window, it gives one
flat sum over all uses in all microbatches.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from gradparity.studies.routes_that_differ.loops import REVERSED, VariantLoop
from gradparity.training.routes import copy_for


def count_uses(loss: Tensor) -> Counter[Tensor]:
    """Count, for each leaf, the operations in the graph of ``loss`` that read it."""
    return Counter(leaf for _, _, leaf in edges_into_leaves(loss))


def edges_into_leaves(loss: Tensor) -> Iterator[tuple[Node, int, Tensor]]:
    """Yield each edge of the graph that ends in a leaf: the node it leaves, its index there, and the leaf."""
    waiting = [loss.grad_fn] if loss.grad_fn else []
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        for index, (following, _) in enumerate(node.next_functions):
            leaf = getattr(following, "variable", None)  # only AccumulateGrad, a leaf's node, has it
            if leaf is not None:
                yield node, index, leaf
            elif following and following not in seen:
                seen.add(following)
                waiting.append(following)


def use_by_use(loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Add each use of a parameter to its ``.grad`` separately, the newest use first."""

    def adder(index: int, p: Tensor) -> Callable[[Sequence[Any], Sequence[Any]], None]:
        def add(passed_on: Sequence[Any], _: Sequence[Any]) -> None:
            g = passed_on[index]
            if p.grad is None:
                p.grad = copy_for(g, p)
            else:
                p.grad.add_(g)

        return add

    handles = [node.register_hook(adder(index, leaf)) for node, index, leaf in edges_into_leaves(loss)]
    torch.autograd.grad(loss, list(parameters), allow_unused=True)
    for handle in handles:
        handle.remove()


USE_BY_USE = VariantLoop("reversed, use by use", REVERSED.step, use_by_use)
