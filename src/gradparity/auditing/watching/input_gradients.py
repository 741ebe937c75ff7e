"""Gradients of an input that ``autograd.grad`` returns without a graph, as a penalty on gradients must not."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from gradparity.auditing.watching.found_optimizers import Registry
from gradparity.auditing.watching.graph_facts import InputGradient
from gradparity.auditing.watching.loss_weights import Graph
from gradparity.auditing.watching.user_lines import Line


class InputGradients:
    """Finds them.

    Args:
        known: the optimizers and what happens to them.
    """

    def __init__(self, known: Registry) -> None:
        self.known = known
        self.found: list[InputGradient] = []

    def look(self, roots: Sequence[Any], inputs: Sequence[Any], graph: Graph, line: Line) -> None:
        """Look at a call of ``autograd.grad`` without ``create_graph``."""
        if not is_of_outputs(roots, inputs, graph):
            return
        leaves = {id(leaf) for leaf in graph.leaves}
        held = {t.story.number: leaves.intersection(map(id, t.parameters())) for t in self.known.alive()}
        modes = self.known.modules.modes
        training = frozenset(number for number, own in held.items() if own and (mode := modes(own)) and mode.in_train)
        if training:
            self.found.append(InputGradient(training, self.known.events, line))


def is_of_outputs(roots: Sequence[Any], inputs: Sequence[Any], graph: Graph) -> bool:
    """Return whether a model's outputs, and no loss, are differentiated by tensors that are no parameters.

    A penalty takes all outputs at once: a tensor of several, or their sum. An attack differentiates a loss, or a mean.
    """
    if graph.losses or len(roots) != 1 or any(isinstance(x, nn.Parameter) for x in inputs):
        return False
    [root] = roots
    return isinstance(root, Tensor) and (
        root.numel() > 1 or (root.grad_fn is not None and root.grad_fn.name() == "SumBackward0")
    )
