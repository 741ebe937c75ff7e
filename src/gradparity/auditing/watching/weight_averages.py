"""Averages of the weights that a training keeps: when they follow, and whether a step was made in between.

An average is a tensor of the shape of a trained parameter that moves towards it by a share of their distance: a buffer
of the model, ``AveragedModel`` of ``torch.optim.swa_utils``, or another copy of the model.
"""

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from gradparity.auditing.events import Backward, StepMade
from gradparity.auditing.facts import Story
from gradparity.auditing.watching.found_modules import Modules
from gradparity.auditing.watching.graph_facts import AverageMove
from gradparity.auditing.watching.later import Later, later
from gradparity.auditing.watching.user_lines import Line
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

    def move(self) -> Any:
        """Return whether it has moved towards a parameter since it was seen before; ``None`` if it has not moved."""
        now = self.tensor()
        if now is None or not _fits(now) or now.shape != self.seen.shape or now.device != self.seen.device:
            return None
        if is_on_host(now) and torch.equal(now.detach(), self.seen):  # elsewhere this would be waited for
            return None
        before, self.seen = self.seen, now.detach().clone()
        alive = [p for ref in self.parameters if (p := ref()) is not None and is_simple(p) and p.device == now.device]
        numbers = (number for p in alive for number in _numbers_of(before, self.seen, p.detach()))
        return later(_follows, (before != self.seen).any(), *numbers)


class _Move(NamedTuple):
    """A look at an average. A GPU may still compute whether it has moved."""

    average: _Average
    story: Story
    follows: Any
    events: int
    """The number of the optimizer's events at the look."""
    steps: int
    line: Line


class Averages:
    """The averages of all optimizers, and their moves."""

    def __init__(self, modules: Modules) -> None:
        self.modules = modules
        self._moves: list[AverageMove] = []
        self._looks = deque[_Move]()
        """Looks that are not read yet."""
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
            line = story.events[-1].line if story.events else story.made
            self._looks.append(_Move(average, story, average.move(), len(story.events), story.steps, line))
        self._read(wait=False)

    def moves(self) -> list[AverageMove]:
        """Return the moves, after a wait for the looks that a GPU still computes."""
        with suppress(Exception):  # the GPU may be lost
            self._read(wait=True)
        return self._moves

    def _read(self, wait: bool) -> None:
        """Read the looks that are there, or wait for all."""
        while self._looks and (wait or not isinstance(self._looks[0].follows, Later) or self._looks[0].follows.ready()):
            look = self._looks.popleft()
            follows = look.follows.get() if isinstance(look.follows, Later) else look.follows
            look.average.astray += follows is False
            if follows:
                self._moves.append(_move_of(look))
                look.average.events = look.events

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


def is_on_host(tensor: Tensor) -> bool:
    """Return whether a tensor can be read without a wait."""
    return tensor.is_cpu


def _move_of(look: _Move) -> AverageMove:
    """Return the move that a look has seen, with what has happened since the average moved before."""
    average, story = look.average, look.story
    since = [event.what for event in story.events[average.events : look.events]]
    steps = [what.skipped for what in since if isinstance(what, StepMade)]
    backwards = sum(isinstance(what, Backward) for what in since)
    made = steps.count(False) if average.events else max(1, steps.count(False))
    return AverageMove(story.number, average.name, made, steps.count(True), backwards, look.steps, look.line)


def _follows(moved: float, *numbers: float) -> bool | None:
    """Return whether an average has moved towards any parameter, from the numbers of each; ``None`` if not moved."""
    return any(_share(*numbers[i : i + 4]) is not None for i in range(0, len(numbers), 4)) if moved else None


def share_of_way(before: Tensor, now: Tensor, parameter: Tensor) -> float | None:
    """Return the share of its way to a parameter by which a tensor moved, on the straight line; else ``None``."""
    return _share(*map(float, _numbers_of(before, now, parameter))) if parameter.device == now.device else None


def _numbers_of(before: Tensor, now: Tensor, parameter: Tensor) -> tuple[Tensor, ...]:
    """Return the share of the way to a parameter, its square, how far a tensor moved, and how far off the way."""
    moved, way = (now - before).double().flatten(), (parameter.to(now.dtype) - before).double().flatten()
    square = way @ way
    share = (moved @ way / square).where(square != 0, 0.0)
    return share, square, moved.norm(), (moved - share * way).norm()


def _share(share: float, square: float, moved: float, off: float) -> float | None:
    straight = 0 < share < 1 - 1e-4 and off < 1e-2 * moved
    return share if straight and square else None
