"""The windows of one optimizer: what happens between two of its steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from gradparity.auditing.events import (
    Backward,
    ClipCalled,
    GradientLook,
    LoopEvent,
    Schedule,
    StepMade,
    Unscale,
    Update,
    ZeroGrad,
)
from gradparity.auditing.facts import Story

WindowBackward: TypeAlias = tuple[LoopEvent, Backward]


@dataclass(frozen=True)
class StepWindow:
    """The events after one step of an optimizer, up to and with its next one."""

    step: int
    """Its number, from 0."""
    events: tuple[LoopEvent, ...]
    end: LoopEvent | None
    """The step that ends it; ``None`` for what follows the last step."""
    previous: LoopEvent | None
    """The step before it."""

    @property
    def made(self) -> StepMade | None:
        """Return the facts of the step that ends it."""
        return self.end.what if self.end is not None and isinstance(self.end.what, StepMade) else None

    @property
    def backwards(self) -> list[WindowBackward]:
        """Return its backwards, in order."""
        return [(e, e.what) for e in self.events if isinstance(e.what, Backward)]

    @property
    def accumulated(self) -> list[WindowBackward]:
        """Return its backwards without those of a closure that its step has called several times.

        Lightning runs the last microbatch of each window in a closure, which its step calls once.
        """
        inside = sum(what.inside_step for _, what in self.backwards)
        return [(e, what) for e, what in self.backwards if inside == 1 or not what.inside_step]

    @property
    def clips(self) -> list[tuple[LoopEvent, ClipCalled]]:
        """Return its clips, in order."""
        return [(e, e.what) for e in self.events if isinstance(e.what, ClipCalled)]

    @property
    def unscaled(self) -> LoopEvent | None:
        """Return its first ``unscale_``."""
        return next((e for e in self.events if isinstance(e.what, Unscale)), None)

    @property
    def zeroed(self) -> LoopEvent | None:
        """Return its first ``zero_grad``."""
        return next((e for e in self.events if isinstance(e.what, ZeroGrad)), None)

    @property
    def adds_up(self) -> bool:
        """Return whether each backward added to what the one before had left, and nothing was written in between."""
        return all(a.after == b.before for (a, _), (b, _) in pairwise(self.backwards))

    def emptied_after(self, event: LoopEvent) -> bool:
        """Return whether the gradients are empty at any moment after ``event`` and before the step reads them."""
        later = [e for e in self.events if e.number > event.number and _looks(e)]
        return any(is_empty(e.before) or (e is not self.end and e.after != () and is_empty(e.after)) for e in later)


def of_one_loss(backwards: Sequence[WindowBackward]) -> bool:
    """Return whether backwards are of one line, from the same weights, to the same optimizers.

    Losses of several models are not, though one function may differentiate all of them.
    """
    return len({(event.line, what.weights, what.reaches) for event, what in backwards}) <= 1


def are_microbatches(backwards: Sequence[WindowBackward]) -> bool:
    """Return whether backwards are of one loss, each of a forward of its own; losses of several tasks share one."""
    return of_one_loss(backwards) and not any(what.same_forward for _, what in backwards[1:])


def windows(story: Story) -> list[StepWindow]:
    """Return the windows of a story, in order. What follows the last step comes last, if anything does."""
    found: list[StepWindow] = []
    events: list[LoopEvent] = []
    previous: LoopEvent | None = None
    for event in story.events:
        events.append(event)
        if isinstance(event.what, StepMade):
            found.append(StepWindow(len(found), tuple(events), event, previous))
            events, previous = [], event
    if events:
        found.append(StepWindow(len(found), tuple(events), None, previous))
    return found


def relative_weights(events: Sequence[LoopEvent]) -> dict[int, float]:
    """Return the weight of a token of each backward in a window, relative to a mean over all tokens of the window.

    It is 1 everywhere if the window is one mean. The keys are the numbers of the events. Empty unless each backward
    has one loss whose weights can be read.
    """
    backwards = [(e.number, e.what.losses) for e in events if isinstance(e.what, Backward)]
    if not backwards or any(len(losses) != 1 or not losses[0].tokens for _, losses in backwards):
        return {}
    if sum(isinstance(e.what, Backward) and e.what.inside_step for e in events) > 1:  # each call of a closure is alone
        return {number: losses[0].total for number, losses in backwards}
    tokens = sum(losses[0].tokens for _, losses in backwards)
    return {number: losses[0].total * tokens / losses[0].tokens for number, losses in backwards}


def number_made(windows: Sequence[StepWindow]) -> int:
    """Return the number of windows that ended with a step, made or skipped."""
    return sum(window.made is not None for window in windows)


def is_empty(gradients: GradientLook) -> bool:
    """Return whether each gradient is ``None`` or zero."""
    return all(g is None or g.norm == 0 for g in gradients)


def same(one: GradientLook, other: GradientLook) -> bool:
    """Return whether two looks saw the same bits, and a gradient that is not zero among them."""
    return len(one) == len(other) and not is_empty(one) and one == other


def size(gradients: GradientLook) -> float:
    """Return the L2 norm over all gradients."""
    return math.sqrt(sum((g.norm * g.norm for g in gradients if g is not None), 0.0))


def _looks(event: LoopEvent) -> bool:
    return not isinstance(event.what, (Update, Schedule))
