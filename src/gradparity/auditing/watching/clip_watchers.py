"""Watchers of the clip functions of ``torch.nn.utils``."""

from collections.abc import Callable, Iterator
from typing import Any

from torch.nn.utils import clip_grad

from gradparity.auditing.events import ClipCalled
from gradparity.auditing.watching.call_stack import clipping, runs_inside
from gradparity.auditing.watching.found_optimizers import Registry
from gradparity.auditing.watching.user_lines import here
from gradparity.auditing.watching.watched_optimizer import WatchedOptimizer
from gradparity.trace.harmless_hooks import Call, Watching
from gradparity.trace.running_clip import parameters_to_clip


class ClipWatchers:
    """The watchers of clips.

    Args:
        known: the optimizers and what happens to them.
    """

    def __init__(self, known: Registry) -> None:
        self.known = known
        self.reached_last: frozenset[int] = frozenset()
        """The numbers of the optimizers that the last backward has reached."""

    def places(self) -> Iterator[tuple[Any, str, Callable[[Call], Watching]]]:
        """Yield each watched function: its owner, its name, and its watcher."""
        yield clip_grad, "_group_tensors_by_device_and_dtype", self._clip
        yield clip_grad, "_get_total_norm", self._norm

    def _clip(self, call: Call) -> Watching:
        running = clipping()
        listed = [id(g) for group in call.args[0] for g in group]
        given = set(listed)
        twice = len(listed) - len(given)
        before = []
        if running is not None:
            for trainee in self.known.near(parameters_to_clip() or ()):
                covered = sum(id(p.grad) in given for p in trainee.parameters() if p.grad is not None)
                if covered:
                    self.known.settle(trainee)
                    before.append((trainee, covered, trainee.gradients()))
        yield
        for trainee, covered, gradients in before:
            assert running is not None
            name, threshold, norm_type = running
            what = ClipCalled(threshold, "value" in name, covered, twice, norm_type)
            self.known.tell(trainee, what, gradients, (), here())

    def _norm(self, call: Call) -> Watching:
        """Record a clip that was given no gradient: those of an optimizer without any, or none of one that has some."""
        tensors = call.get(0, "tensors")
        yield
        if isinstance(tensors, (list, tuple)) and not tensors and runs_inside("clip_grad_norm_"):
            given = parameters_to_clip()
            for trainee in self._without_gradients() or self._with_gradients():
                self.known.settle(trainee)
                what = ClipCalled(None, False, 0, given_any=given is None or bool(given))
                self.known.tell(trainee, what, trainee.gradients(), (), here())

    def _with_gradients(self) -> list[WatchedOptimizer]:
        """Return the one optimizer to which the last backward has given gradients; none if there are several."""
        reached = [t for t in self.known.near() if t.story.number in self.reached_last]
        found = [t for t in reached if any(g is not None and g.norm for g in t.gradients())]
        return found if len(found) == 1 else []

    def _without_gradients(self) -> list[WatchedOptimizer]:
        """Return the optimizers without any gradient that hold a parameter which the running clip was given."""
        given = {id(p) for p in parameters_to_clip() or ()}
        mine = [(t, t.parameters()) for t in (self.known.alive() if given else [])]
        return [t for t, own in mine if not given.isdisjoint(map(id, own)) and all(p.grad is None for p in own)]
