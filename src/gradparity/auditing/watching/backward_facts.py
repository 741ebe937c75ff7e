"""Signs of one backward, looked for before it runs and after it."""

from collections.abc import Sequence
from typing import Any

from gradparity.auditing.events import Backward
from gradparity.auditing.gradient_looks import Look
from gradparity.auditing.watching.found_modules import Modules
from gradparity.auditing.watching.graph_facts import GraphSigns, Signs, is_squared, rounded_to
from gradparity.auditing.watching.random_numbers import random_digest
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer

FIRST_STEPS = 3
"""Steps in which the counts of batch normalization are compared: a checkpoint recomputes in each of them."""


class BackwardSigns:
    """The signs of one backward, which begins now.

    Args:
        graph: the signs of its graph.
        roots: what it differentiates.
        reached: the ``id`` of each leaf that it leads to.
        modules: the models of this process.
    """

    def __init__(self, graph: GraphSigns, roots: Sequence[Any], reached: set[int], modules: Modules) -> None:
        self.graph = graph
        self.reached = reached
        self.modules = modules
        self._squared = any(is_squared(root) for root in roots)
        self._random = random_digest()
        self._drew = False
        self._rounded: dict[int, str] = {}

    def begins(self, trainee: WatchedOptimizer, gradients: Look) -> None:
        """Look at gradients that were written since the microbatch before."""
        events = trainee.story.events
        last = events[-1] if events else None
        if last is None or not isinstance(last.what, Backward) or not last.what.into_grad:
            return
        if isinstance(last.after, Look) and last.after.is_known_equal(gradients):
            return
        written = [a is not None and b is not None and a != b for a, b in zip(last.after, gradients, strict=False)]
        now = [p.grad for p, new in zip(trainee.parameters(), written, strict=False) if new and p.grad is not None]
        if now:
            self._rounded[trainee.story.number] = rounded_to(now)

    def is_over(self) -> None:
        """Note that the backward has ended."""
        self._drew = random_digest() != self._random

    def of(self, trainee: WatchedOptimizer, counted: int | None) -> Signs:
        """Return the signs for one optimizer.

        Args:
            trainee: the optimizer.
            counted: the batches that batch normalization had counted when the backward began; ``None`` without any.
        """
        parameters = trainee.parameters()
        touched = self.graph.touched - self.graph.used
        recounted = 0
        if counted is not None and trainee.story.steps < FIRST_STEPS:
            modes = self.modules.modes({id(p) for p in parameters})
            recounted = modes.counted - counted if modes is not None else 0
        return Signs(
            leaves=frozenset(i for i, p in enumerate(parameters) if id(p) in self.reached),
            touched=frozenset(i for i, p in enumerate(parameters) if id(p) in touched),
            casts=frozenset(self.graph.casts),
            stale=len(self.graph.stale & {id(p) for p in parameters}),
            squared=self._squared,
            opaque=self.graph.opaque,
            drew=self._drew,
            recounted=recounted,
            rounded=self._rounded.get(trainee.story.number, ""),
        )
