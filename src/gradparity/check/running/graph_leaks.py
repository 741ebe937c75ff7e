"""Autograd graphs that a loop keeps alive from step to step. Comparing values cannot reveal them.

``total += loss`` makes the same updates as ``total += loss.item()``. But it keeps the graph of every microbatch until
the epoch ends, so memory grows with each step. Therefore graphs are counted. Each forward writes the number of its step
into the metadata of a node of its graph, which autograd keeps and never reads. After each step, the numbers that can
still be reached are counted.
"""

import gc
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gradparity.check.running.observe import Observation
from gradparity.faults import stress_scenario
from gradparity.trace.events import Event, Record

_MOST_STEPS = 2
"""Steps whose graphs may be alive together: the current one, and the last one, in a variable not yet overwritten."""

_STEP = "step of gradparity check"


@dataclass
class GraphLeaks:
    """A count of the graphs that are alive at the end of each step."""

    steps: int = 0
    """Number of steps made so far."""
    alive: list[tuple[int, int]] = field(default_factory=list)
    """For each step: the number of steps whose graphs are alive, and the number of nodes of all live graphs."""

    def build(
        self, precision: str, build: Callable[[str], stress_scenario.Cast] = stress_scenario.build
    ) -> stress_scenario.Cast:
        """Call ``build`` for the stress scenario, and have its model mark its graphs."""
        cast = build(precision)
        cast.model.register_forward_hook(self.mark)
        return cast

    def mark(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        """Mark the graph of ``output`` with the number of the step; call this after each forward of the model."""
        if output.grad_fn is not None:
            _metadata_of(output.grad_fn)[_STEP] = self.steps

    def count(self, records: Sequence[Record], _: Sequence[Observation]) -> bool:
        """Count the live graphs if a step has just ended; call this after each observation.

        The result is always true, so that the loop goes on.
        """
        if records[-1].event in (Event.STEP, Event.SKIP):
            self.steps += 1
            gc.collect()
            nodes = _reachable(_tensors_with_a_graph())
            steps = {data[_STEP] for data in map(_metadata_of, nodes) if _STEP in data}
            self.alive.append((len(steps), len(nodes)))
        return True

    @property
    def steps_kept(self) -> int:
        """Return the largest number of steps whose graphs were alive together; 0 if a correct loop may keep as many."""
        most = max((steps for steps, _ in self.alive), default=0)
        return most if most > _MOST_STEPS else 0

    @property
    def nodes_per_step(self) -> int:
        """Return the number of nodes that each step added, up to the step with the most live nodes."""
        steps, nodes = max(self.alive, key=lambda alive: alive[1])
        return nodes // steps


def _metadata_of(node: torch.autograd.graph.Node) -> dict[str, int]:
    """Return the node's metadata, which torch's own type annotations declare as a method."""
    data: Any = node.metadata
    assert isinstance(data, dict)
    return data


def _tensors_with_a_graph() -> list[Tensor]:
    """Return all tensors in this process that have a graph."""
    found = []
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor):
            with suppress(RuntimeError):  # a view whose base was changed under no_grad has no graph to ask for
                if thing.grad_fn is not None:
                    found.append(thing)
    return found


def _reachable(tensors: Iterable[Tensor]) -> set[torch.autograd.graph.Node]:
    """Return the nodes of the graphs of ``tensors``."""
    found = set[torch.autograd.graph.Node]()
    waiting = [t.grad_fn for t in tensors if t.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [next_node for next_node, _ in node.next_functions if next_node is not None]
    return found
