"""Graphs that a backward has kept: a later loss that reads one of their results is of the same forward.

Two losses of one forward, such as those of two tasks, are not two microbatches, though one line differentiates both.
"""

from collections.abc import Iterable
from typing import Any

_PASSED = "gradparity passed"
"""The key in a node's metadata that says that a backward has passed it and kept it."""

_OF_WEIGHTS = {"ToCopyBackward0", "TBackward0"}
"""Casts and transposes, of which autocast and models keep those of their weights from one forward to the next."""


class KeptGraphs:
    """The graphs that were differentiated with ``retain_graph``, as long as they live."""

    def __init__(self) -> None:
        self._any = False

    def passes(self, nodes: Iterable[Any], keeps: bool) -> bool:
        """Return whether one of these nodes is of a graph that was kept, and mark all of them if this one is kept."""
        found = self._any and any(_PASSED in node.metadata for node in nodes)
        if keeps:
            self._any = True
            for node in nodes:
                if getattr(node, "variable", None) is None and node.name() not in _OF_WEIGHTS:
                    node.metadata[_PASSED] = True
        return found
