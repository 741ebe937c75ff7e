"""Rules on steps, and on weights and states that change between two of them."""

import itertools
import math
from collections.abc import Container, Iterator, Sequence

import torch

from gradparity.auditing.events import GradientLook, StepMade
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, is_empty, same
from gradparity.trace.fingerprint import Fingerprint

AGAIN = Rule(
    "GP801",
    "stepped-twice-on-the-same-gradients",
    "No backward ran between two steps, and the second one read the same gradients.",
    "optimizer.step()  # once a window",
    right_in="methods that make several steps along one gradient",
)
NOTHING_TO_READ = Rule(
    "GP802",
    "step-without-gradients",
    "The optimizer made a step before any backward had given it a gradient.",
    "loss.backward()\noptimizer.step()",
    right_in="an optimizer that only carries a schedule",
)
NOT_FINITE = Rule(
    "GP803",
    "stepped-on-infinite-gradients",
    "A gradient was infinite or NaN and the step was made all the same. The weights are NaN from then on.",
    "scaler.step(optimizer)  # skips such a step\n# or, without a scaler\nif torch.isfinite(norm):\n"
    "    optimizer.step()",
)
WEIGHTS_WRITTEN = Rule(
    "GP804",
    "weights-written-between-steps",
    "The weights are not those that the last step has left: something else has written to them.",
    "with torch.no_grad(): ...  # nothing between the steps, or an optimizer that does it",
    right_in="WGAN's clipped weights, lookahead, averages that are swapped in, codebooks, projections, noise on the "
    "weights, a restored best checkpoint",
)
STATE_CHANGED = Rule(
    "GP805",
    "optimizer-state-lost-between-steps",
    "The moments of the optimizer are gone that the last step had left. Without them it begins anew.",
    "optimizer = torch.optim.AdamW(model.parameters())  # once\noptimizer.load_state_dict(checkpoint['optimizer'])",
    right_in="restarts that forget the moments on purpose; a state copied from another run, as in population-based "
    "training",
)
TWICE_DIFFERENTIATED = Rule(
    "GP806",
    "loss-differentiated-twice",
    "The same loss was differentiated twice in one window with its graph kept, so its gradient counts twice.",
    "loss.backward()",
    right_in="gradients of one loss that are looked at one by one",
)
NEVER_REACHED = Rule(
    "GP807",
    "parameter-without-gradient",
    "The optimizer holds parameters that no backward ever reached, though they require gradients: the graph does not "
    "lead to them, or they are not used.",
    "x = block(x)  # without .detach(), .data or no_grad",
    right_in="models with parts that this training does not use",
)


def of_story(story: Story, windows: Sequence[StepWindow], facts: RunFacts) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    made = [window for window in windows if window.made is not None]
    yield from _steps(made)
    others = [s for s in facts.stories if s is not story]
    left = {e.what.weights_after for s in others for e in s.events if isinstance(e.what, StepMade)}
    yield from _between(made, left, story.by_torch)
    yield from _differentiated_twice(made)
    yield from _never_reached(story, made, {name for s in others if s.steps for name in s.names})


def _steps(made: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    again, nothing, infinite = [], [], []
    for window in made:
        assert window.end is not None
        assert window.made is not None
        if not window.backwards and not window.made.closure:
            if window.previous is not None and same(window.end.before, window.previous.after):
                again.append(window)
            elif is_empty(window.end.before) and all(e.what == window.made for e in window.events):
                nothing.append(window)
        moved = not window.made.skipped and window.made.weights_before != window.made.weights_after
        if moved and any(g is not None and not math.isfinite(g.norm) for g in window.end.before):
            infinite.append(window)
    if len(again) > 1:
        yield _of(
            AGAIN, RuleVerdict.UNUSUAL, again, "no backward ran since the step before, and the gradients are the same"
        )
    if nothing:
        yield _of(
            NOTHING_TO_READ, RuleVerdict.UNUSUAL, nothing, "no backward ran before this step, and it had no gradient"
        )
    if infinite:
        scaled = any(window.made is not None and window.made.scale for window in made)
        words = "a gradient was infinite or NaN, and the step was made"
        yield _of(NOT_FINITE, RuleVerdict.WRONG if scaled else RuleVerdict.UNUSUAL, infinite, words)


def _between(made: Sequence[StepWindow], left_by_others: Container[object], by_torch: bool) -> Iterator[RuleFinding]:
    """Compare what a step has left with what the next one finds.

    Args:
        made: the steps.
        left_by_others: the weights that other optimizers of the same parameters have left.
        by_torch: whether the optimizer is PyTorch's own; another may learn between its steps.
    """
    weights, state = [], []
    empty = made[0].made.state_before if made and made[0].made is not None else ""
    by_backward = any(window.backwards for window in made)  # else by perturbation, which rounds when it goes back
    # A state that was there before is loaded on purpose, such as the best one.
    known_weights = {w.made.weights_after for w in made if w.made}
    initial = {w.made.weights_before for w in made[:1] if w.made}
    known_states = {w.made.state_after for w in made if w.made}
    for before, window in itertools.pairwise(made):
        assert before.made is not None
        assert window.made is not None
        if before.end is None or window.end is None or len(before.end.after) != len(window.end.before):
            continue  # parameters came or went
        if _widened(before.end.before, window.end.before):
            continue  # as by model.double(): the same numbers in other bits
        first = window.backwards[0][1].weights if window.backwards else window.made.weights_before
        restored = window.made.weights_before == before.made.weights_after
        # Frozen parameters that an optimizer holds are a momentum encoder's or a codebook's: the loop writes them.
        frozen = before.made.frozen & window.made.frozen
        # Lightning's averaging makes such a step at its end.
        idle = not window.backwards and window.made.weights_before == window.made.weights_after
        # A training that is resumed does not begin again with its first weights.
        fetched = window.made.loaded and first in (known_weights if window.made.resumed else known_weights | initial)
        written = by_backward and not fetched and first not in left_by_others
        if first != before.made.weights_after and written and not restored and not idle and not frozen:
            weights.append(window)
        now = window.made.state_before
        if now != before.made.state_after and (now == empty or (by_torch and now not in known_states)):
            state.append(window)
    if weights:
        yield _of(
            WEIGHTS_WRITTEN, RuleVerdict.UNUSUAL, weights, "the weights are not those that the step before has left"
        )
    if state:
        emptied = any(window.made is not None and window.made.state_before == empty for window in state)
        words = "the optimizer's own state is " + (
            "empty again" if emptied else "not the one that the step before has left"
        )
        yield _of(STATE_CHANGED, RuleVerdict.UNUSUAL, state, words)


def _widened(one: GradientLook, other: GradientLook) -> bool:
    """Return whether the gradients of some parameters have a dtype of more bits than before, and of none of fewer."""
    pairs = [(_bytes(a), _bytes(b)) for a, b in zip(one, other, strict=True) if a and b]
    return any(a < b for a, b in pairs) and all(a <= b for a, b in pairs)


def _bytes(gradient: Fingerprint) -> int:
    dtype: torch.dtype = getattr(torch, gradient.dtype)
    return dtype.itemsize


def _differentiated_twice(made: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = [w for w in made if any(what.again and not is_empty(e.before) for e, what in w.backwards)]
    if len(found) > 1:
        certain = all(w.adds_up and _weighs_the_same_again(w) for w in found)
        words = "the same loss was differentiated twice" + (
            " with the same weight, and both were added" if certain else ""
        )
        verdict = RuleVerdict.WRONG if certain else RuleVerdict.UNUSUAL
        yield _of(TWICE_DIFFERENTIATED, verdict, found, words)


def _weighs_the_same_again(window: StepWindow) -> bool:
    """Return whether a loss that was differentiated again has the weight that it had before, which no method wants."""
    for index, (_, what) in enumerate(window.backwards):
        earlier = {
            (loss.node, loss.tokens, loss.total) for _, before in window.backwards[:index] for loss in before.losses
        }
        if what.again and any((loss.node, loss.tokens, loss.total) in earlier for loss in what.losses):
            return True
    return False


def _never_reached(story: Story, made: Sequence[StepWindow], elsewhere: Container[str]) -> Iterator[RuleFinding]:
    looks = [w.end.before for w in made if w.end is not None and w.backwards]
    if len(looks) < 2:
        return
    never = [
        index
        for index in range(len(story.names))
        if index < len(story.trained)
        and story.trained[index]
        and story.names[index] not in elsewhere
        and all(index < len(look) and look[index] is None for look in looks)
    ]
    by_hand = any(not what.into_grad for w in made for _, what in w.backwards)
    if never and not by_hand and len(never) < len(story.names):
        names = ", ".join(story.names[i] for i in never[:3]) + (f" and {len(never) - 3} more" if len(never) > 3 else "")
        yield _of(NEVER_REACHED, RuleVerdict.UNUSUAL, made, f"{names} never got a gradient")


def _of(rule: Rule, verdict: RuleVerdict, found: Sequence[StepWindow], words: str) -> RuleFinding:
    window = found[0]
    assert window.end is not None
    first = window.backwards[0][0].line if window.backwards and rule is not NOT_FINITE else window.end.line
    return RuleFinding(
        rule, verdict, f"{words}, in {times(len(found))}", first, window.end.line, window.step, times=len(found)
    )
