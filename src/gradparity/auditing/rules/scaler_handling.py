"""Rules on a scaler that is made again, set by hand, or helped by hand."""

import itertools
import math
from collections.abc import Iterator, Sequence

from gradparity.auditing.events import Backward, LoopEvent, StepMade, Unscale, Update, ZeroGrad
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.rules.loss_scale import factor_of
from gradparity.auditing.step_windows import StepWindow, is_empty

NEW_SCALER = Rule(
    "GP206",
    "scaler-made-again",
    "A new GradScaler starts at its initial scale and forgets what the one before had found. The first steps overflow "
    "and are skipped, each time anew.",
    "scaler = torch.amp.GradScaler()  # once, beside the optimizer\nfor epoch in range(epochs): ...",
    right_in="short stages, in which the scale has not moved",
    reported="https://github.com/conservationtechlab/animl-py/pull/304",
)
SCALE_JUMPED = Rule(
    "GP207",
    "scale-set-beside-the-scaler",
    "The loss scale is not the one that the last update() has left: the scaler was made anew or not restored.",
    "scaler.load_state_dict(checkpoint['scaler'])",
    right_in="a scale that is set by hand",
)
UNSCALED_TWICE = Rule(
    "GP208",
    "unscaled-by-hand-and-by-the-scaler",
    "The gradients were divided by the loss scale twice: by the loop and again by the scaler, or by the scaler before "
    "and after an update(), which forgets that it was done. They nearly vanish.",
    "scaler.unscale_(optimizer)  # remembers that it was done; step() then does not do it again\n"
    "scaler.step(optimizer)\nscaler.update()  # once, after the last optimizer",
)


def of_story(story: Story, windows: Sequence[StepWindow], facts: RunFacts) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    yield from _new_scaler(windows, facts)
    yield from _jumped(story)
    yield from _unscaled_twice(windows)


def _new_scaler(windows: Sequence[StepWindow], facts: RunFacts) -> Iterator[RuleFinding]:
    steps = [(w, w.made) for w in windows if w.made is not None and w.made.scaler is not None]
    found = []
    for (_, before), (window, after) in itertools.pairwise(steps):
        assert before.scaler is not None
        assert after.scaler is not None
        if before.scaler != after.scaler and facts.scalers[before.scaler] == facts.scalers[after.scaler]:
            found.append((window, before, after))
    higher = [(w, a, b) for w, a, b in found if a.scale and b.scale and b.scale > a.scale and b.skipped]
    if found and not higher:
        window, _, after = found[0]
        assert after.scaler is not None
        words = f"a new GradScaler was made for the same optimizer, {times(len(found), 'time')}"
        yield RuleFinding(
            NEW_SCALER, RuleVerdict.UNUSUAL, words, facts.scalers[after.scaler], None, window.step, times=len(found)
        )
    if not higher:
        return
    window, before, after = higher[0]
    assert window.end is not None
    assert after.scaler is not None
    yield RuleFinding(
        NEW_SCALER,
        RuleVerdict.WRONG,
        f"a new GradScaler was made for the same optimizer, {times(len(found), 'time')}: the scale jumped from "
        f"{before.scale:g} back to {after.scale:g}, and the next step overflowed and was skipped",
        facts.scalers[after.scaler],
        window.end.line,
        window.step,
        times=len(found),
    )


def _jumped(story: Story) -> Iterator[RuleFinding]:
    last: Update | None = None
    for event in story.events:
        if isinstance(event.what, Update):
            last = event.what
        elif isinstance(event.what, StepMade) and last is not None and event.what.scaler == last.scaler:
            scale = event.what.scale
            tracker = event.what.tracker
            if scale == last.after and tracker not in (None, last.tracker):
                words = f"the scaler had counted {last.tracker} steps since its last change, and now {tracker}"
                yield RuleFinding(SCALE_JUMPED, RuleVerdict.UNUSUAL, words, event.line)
                return
            if scale not in (None, last.after):
                words = f"update() had left the loss scale at {last.after:g}, and this step finds {scale:g}"
                yield RuleFinding(SCALE_JUMPED, RuleVerdict.UNUSUAL, words, event.line)
                return


def _unscaled_twice(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    again, found = [], []
    for window in windows:
        twice = unscaled_again(window) if window.made is not None else None
        if twice is not None:
            again.append((window, twice))
            continue
        scale = factor_of(window)
        if window.unscaled is None or window.made is None or scale <= 1 or window.clips:
            continue
        last = window.backwards[-1][0]
        pairs = [(a, b) for a, b in zip(last.after, window.unscaled.before, strict=False) if a and b and a.norm]
        factors = [abs(b.norm / a.norm) * scale for a, b in pairs if math.isfinite(a.norm)]
        if factors and all(abs(factor - 1) < 1e-2 for factor in factors):
            found.append((window, last, scale))
    if again:
        window, (one, scale, two) = again[0]
        words = (
            f"in {times(len(again))} the scaler divided the gradients twice, first by {scale:g}: update() ran in "
            "between, so the scaler no longer knew that it had done so"
        )
        yield RuleFinding(UNSCALED_TWICE, RuleVerdict.WRONG, words, two.line, one.line, window.step, times=len(again))
    if found:
        window, last, scale = found[0]
        assert window.unscaled is not None
        words = (
            f"the loop divided the gradients by {scale:g}, and the scaler divides them again, in {times(len(found))}"
        )
        yield RuleFinding(UNSCALED_TWICE, RuleVerdict.WRONG, words, window.unscaled.line, last.line, window.step)


def unscaled_again(window: StepWindow) -> tuple[LoopEvent, float, LoopEvent] | None:
    """Return the first ``unscale_``, its scale, and the second, if an update ran between them and no backward did."""
    first: tuple[LoopEvent, float] | None = None
    updated = False
    for event in window.events:
        if isinstance(event.what, Backward | ZeroGrad):
            first, updated = None, False
        elif isinstance(event.what, Update):
            updated = first is not None
        elif isinstance(event.what, Unscale) and event.what.scale > 1:
            if first is not None and updated and not is_empty(event.before):
                return *first, event
            first, updated = (event, event.what.scale), False
    return None
