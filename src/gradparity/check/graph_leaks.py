"""Graphs that a loop keeps alive from step to step, which no comparison of values can see.

``total += loss`` makes the same updates as ``total += loss.item()``, and holds the graph of every microbatch until the
epoch ends: memory grows with each step. So graphs are counted. Each forward signs its own in a node's metadata, where
autograd keeps what is said of a node and never reads it, and after each step we look whose can still be reached.
"""

import gc
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradparity.check.observe import Look
from gradparity.faults import stress
from gradparity.trace.record import Event, Record

MOST_STEPS = 2
"""Whose graphs may be alive together: this step's, and that of the last one, in a variable not yet overwritten."""

SIGNED = "step of gradparity check"


@dataclass
class Graphs:
    """Counts, at the end of each step, the graphs that are alive."""

    steps: int = 0
    """How many steps have been made."""
    alive: list[tuple[int, int]] = field(default_factory=list)
    """After each: of how many steps there are graphs, and how many nodes these have."""

    def build(self, precision: str) -> stress.Cast:
        """The stress scenario, with a model that signs its graphs."""
        cast = stress.build(precision)
        cast.model.register_forward_hook(self.sign)
        return cast

    def sign(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """To be called after each forward of the model."""
        if output.grad_fn is not None:
            said_of(output.grad_fn)[SIGNED] = self.steps

    def after(self, records: Sequence[Record], looks: Sequence[Look]) -> bool:
        """To be called after each look; always true, so that the loop goes on."""
        if records[-1].event in (Event.STEP, Event.SKIP):
            self.steps += 1
            gc.collect()
            nodes = reachable(tensors_with_a_graph())
            of = {said[SIGNED] for said in map(said_of, nodes) if SIGNED in said}
            self.alive.append((len(of), len(nodes)))
        return True

    @property
    def kept(self) -> int:
        """The largest number of steps whose graphs were alive together, if that is more than a loop needs; else 0."""
        most = max((steps for steps, _ in self.alive), default=0)
        return most if most > MOST_STEPS else 0

    @property
    def growth(self) -> int:
        """How many nodes more were alive with each step, up to where most were."""
        steps, nodes = max(self.alive, key=lambda alive: alive[1])
        return nodes // steps


def said_of(node: torch.autograd.graph.Node) -> dict[str, int]:
    """The node's metadata, which torch's own types take for a method."""
    said: Any = node.metadata
    assert isinstance(said, dict)
    return said


def tensors_with_a_graph() -> list[Tensor]:
    """All that are alive in this process."""
    found = []
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor):
            with suppress(RuntimeError):  # a view whose base was changed under no_grad has no graph to ask for
                if thing.grad_fn is not None:
                    found.append(thing)
    return found


def reachable(tensors: Iterable[Tensor]) -> set[torch.autograd.graph.Node]:
    """The nodes of their graphs."""
    found = set[torch.autograd.graph.Node]()
    waiting = [t.grad_fn for t in tensors if t.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [next_node for next_node, _ in node.next_functions if next_node is not None]
    return found
