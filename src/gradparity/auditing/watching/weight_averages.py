"""Averages of the weights that a training keeps: when they follow, and whether a step was made in between.

An average is a tensor of the shape of a trained parameter that moves towards it by a share of their distance: a buffer
of the model, ``AveragedModel`` of ``torch.optim.swa_utils``, or another copy of the model.
"""

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from gradparity.auditing.events import Backward, StepMade
from gradparity.auditing.watching.found_modules import Modules
from gradparity.auditing.watching.graph_facts import AverageMove
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer
from gradparity.parity.dense_parts import is_simple

LARGEST = 1 << 20
"""Elements of a tensor that is looked at, at most: a copy of it is kept."""
SMALLEST = 16
"""Elements at least: few numbers move in a common direction by chance."""
MOST = 4
"""Averages of one optimizer that are followed, at most."""


PATIENCE = 4
"""Number of moves in other directions after which a tensor counts as no average."""


class _Average:
    """A tensor that may follow one of some parameters."""

    def __init__(self, name: str, tensor: Tensor, parameters: list[Tensor]) -> None:
        self.name = name
        self.tensor = weakref.ref(tensor)
        self.parameters = [weakref.ref(p) for p in parameters]
        self.seen = tensor.detach().clone()
        self.astray = 0
        """The number of times that it moved otherwise."""
        self.events = 0
        """The number of the optimizer's events when it moved last."""

    def followed(self) -> bool:
        """Return whether it has moved towards a parameter since it was seen before."""
        now = self.tensor()
        if now is None or not _fits(now) or now.shape != self.seen.shape or torch.equal(now.detach(), self.seen):
            return False
        before, self.seen = self.seen, now.detach().clone()
        alive = [p for ref in self.parameters if (p := ref()) is not None and is_simple(p)]
        follows = any(moves_towards(before, self.seen, p.detach()) for p in alive)
        self.astray += not follows
        return follows


class Averages:
    """The averages of all optimizers, and their moves."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules
        self.moves: list[AverageMove] = []
        self._of: dict[int, list[_Average]] = {}
        self._known: dict[int, int] = {}
        """The number of modules when averages were looked for, by optimizer."""

    @torch.no_grad()
    def look(self, trainee: WatchedOptimizer) -> None:
        """Look whether an average of this optimizer's weights has moved."""
        story = trainee.story
        if self._known.get(story.number) != self.modules.number:
            self._known[story.number] = self.modules.number
            known = {id(a.tensor()) for a in self._of.get(story.number, ())}
            found = [a for a in self._find(trainee) if id(a.tensor()) not in known]
            self._of[story.number] = [*self._of.get(story.number, ()), *found][:MOST]
        self._of[story.number] = [a for a in self._of[story.number] if a.astray < PATIENCE]
        for average in self._of[story.number]:
            if average.followed():
                since = [event.what for event in story.events[average.events :]]
                steps = [what.skipped for what in since if isinstance(what, StepMade)]
                backwards = sum(isinstance(what, Backward) for what in since)
                line = story.events[-1].line if story.events else story.made
                self.moves.append(
                    AverageMove(
                        story.number,
                        average.name,
                        steps.count(False) if average.events else max(1, steps.count(False)),
                        steps.count(True),
                        backwards,
                        story.steps,
                        line,
                    )
                )
                average.events = len(story.events)

    def forget(self, tensors: Sequence[Tensor]) -> None:
        """Follow no average any more that one of these tensors is or may follow."""
        gone = set(map(id, tensors))
        for number, averages in self._of.items():
            self._of[number] = [a for a in averages if gone.isdisjoint(id(ref()) for ref in (a.tensor, *a.parameters))]

    def _find(self, trainee: WatchedOptimizer) -> Iterator[_Average]:
        parameters = {id(p): p for p in trainee.parameters() if _fits(p)}
        trained = [root for root in self.modules.roots() if any(id(p) in parameters for p in root.parameters())]
        for root in trained:
            statistics = {id(b) for m in root.modules() if isinstance(m, _NormBase) for b in m.buffers(recurse=False)}
            for name, buffer in root.named_buffers():
                alike = [p for p in parameters.values() if p.shape == buffer.shape and p.dtype == buffer.dtype]
                if alike and id(buffer) not in statistics and _fits(buffer):
                    yield _Average(name, buffer, alike)
        names = {name: p for root in trained for name, p in root.named_parameters() if id(p) in parameters}
        for root in self.modules.roots():
            if names and root not in trained:
                yield from _copies(root, names)


def _copies(root: nn.Module, names: dict[str, Any]) -> Iterator[_Average]:
    """Yield the largest parameter of a module that has the names and shapes of a trained model."""
    own = {name.removeprefix("module."): (name, p) for name, p in root.named_parameters()}
    if all(name in own and own[name][1].shape == p.shape for name, p in names.items()):
        name = max(names, key=lambda each: names[each].numel())
        if _fits(own[name][1]) and not any(own[name][1] is p for p in names.values()):
            yield _Average(f"{type(root).__name__}.{own[name][0]}", own[name][1], [names[name]])


def _fits(tensor: Tensor) -> bool:
    return is_simple(tensor) and tensor.is_floating_point() and SMALLEST <= tensor.numel() <= LARGEST


def moves_towards(before: Tensor, now: Tensor, parameter: Tensor) -> bool:
    """Return whether ``now`` lies between ``before`` and a parameter, on the straight line."""
    return share_of_way(before, now, parameter) is not None


def share_of_way(before: Tensor, now: Tensor, parameter: Tensor) -> float | None:
    """Return the share of its way to a parameter by which a tensor moved, on the straight line; else ``None``."""
    if parameter.device != now.device:
        return None
    moved, way = (now - before).double().flatten(), (parameter.to(now.dtype) - before).double().flatten()
    length = float(way @ way)
    share = float(moved @ way) / length if length else 0.0
    straight = 0 < share < 1 - 1e-4 and float((moved - share * way).norm()) < 1e-2 * float(moved.norm())
    return share if straight else None
