"""Signs of one backward, looked for before it runs and after it."""

import operator
from collections.abc import Sequence
from functools import partial
from typing import Any

from gradparity.auditing.events import Backward
from gradparity.auditing.gradient_looks import Look
from gradparity.auditing.watching.found_modules import Modules
from gradparity.auditing.watching.graph_facts import GraphSigns, Signs, is_squared, rounded_to, rounding_of
from gradparity.auditing.watching.later import later
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
        self._rounded: dict[int, Any] = {}

    def begins(self, trainee: WatchedOptimizer, gradients: Look) -> None:
        """Look at gradients that were written since the microbatch before."""
        events = trainee.story.events
        last = events[-1] if events else None
        if last is None or not isinstance(last.what, Backward) or not last.what.into_grad:
            return
        if not isinstance(last.after, Look) or last.after.is_known_equal(gradients):
            return
        counted = gradients.written_since(last.after)
        each = enumerate(zip(trainee.parameters(), counted, strict=False))
        now = [(i, p.grad) for i, (p, new) in each if new and p.grad is not None]
        if now:
            numbers = (number for _, gradient in now for number in rounding_of(gradient))
            rounded = later(partial(_rounded, [i for i, _ in now]), last.after, gradients, *numbers)
            self._rounded[trainee.story.number] = rounded

    def is_over(self) -> None:
        """Note that the backward has ended."""
        self._drew = random_digest() != self._random

    def of(self, trainee: WatchedOptimizer, counted: Any) -> Signs:
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
            recounted = later(operator.sub, modes.counted, counted) if modes is not None else 0
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


def _rounded(positions: Sequence[int], before: Look, now: Look, *found: float | None) -> str:
    """Return the half precision of the gradients that have other bits now; more of them were perhaps written."""
    return rounded_to([before[i] != now[i] for i in positions], *found)
