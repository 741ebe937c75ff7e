"""Rules on the number by which a loss is divided, where all tokens of a window weigh the same.

Only losses with padding are looked at: there, the number of tokens differs from window to window, and what divides by
it can be told from what divides by something else. A factor that the loop applies to the gradients themselves counts.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradparity.auditing.events import LossWeights
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, are_microbatches, size, windows

SUMMED = Rule(
    "GP408",
    "summed-over-tokens",
    "A token weighs the same in every step, however many tokens a step has: the loss is a sum, or is divided by a "
    "number of microbatches or sequences. Steps with many tokens have long gradients, and are clipped more often.",
    'loss = F.cross_entropy(logits, labels, reduction="sum") / tokens_of_the_window',
    right_in="sums by intent, with a learning rate tuned for them; losses that are a sum over each sequence",
)
ANOTHER_COUNT = Rule(
    "GP409",
    "divided-by-another-count",
    "The loss is divided by a count that is not the number of tokens which the window differentiates: that of one "
    "microbatch, of labels before they were shifted, or of a microbatch that is left out.",
    "tokens = sum((batch.labels != -100).sum() for batch in window)",
    right_in="a normalization by something else than tokens",
    reported="https://github.com/huggingface/transformers/issues/34242",
)
SQUARED = Rule(
    "GP410",
    "loss-multiplied-by-itself",
    "The loss is multiplied by itself before its backward, so each gradient is multiplied by twice its loss.",
    "loss.backward()",
    right_in="a loss that is squared on purpose",
)
ASCENT = Rule(
    "GP411",
    "gradient-ascent",
    "The only optimizer of this training makes its loss larger: the weight of every token is negative.",
    "loss.backward()  # not -loss",
    right_in="unlearning, attacks and other ascents on purpose",
)

ALIKE, DIFFERENT = 1e-3, 0.05
"""Relative differences: of numbers that are the same but for rounding, and of numbers that are not."""
LARGEST_COUNT = 50_000
"""A count that single precision tells from its neighbours."""


@dataclass(frozen=True)
class _Even:
    """A window in which every token weighs the same."""

    window: StepWindow
    weight: float
    tokens: tuple[int, ...]
    """The number of tokens of each microbatch."""
    elements: int
    """The number of all positions, padding included."""

    @property
    def total(self) -> float:
        return self.weight * sum(self.tokens)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    made = [window for window in windows if window.made is not None and window.backwards]
    even = [one for one in map(_even, made) if one is not None]
    finite = sum(math.isfinite(size(window.backwards[-1][0].after)) for window in made)
    if len(even) > 2 and len(even) >= finite - 1:
        yield from _divisor(even)
    squared = [w for w in made if all(what.signs.squared for _, what in w.backwards)]
    if len(squared) > 1 and len(squared) == len(made):
        yield _of(SQUARED, squared[0], f"the loss is multiplied by itself, in {times(len(squared))}")


def of_run(facts: RunFacts) -> Iterator[RuleFinding]:
    """Yield an ascent, if there is only one optimizer: two may play against each other."""
    stories = [story for story in facts.stories if story.steps]
    if len(stories) != 1 or any(group.get("maximize") for group in stories[0].groups):
        return
    made = [window for window in windows(stories[0]) if window.made is not None and window.backwards]
    single = [what.losses[0] for w in made for _, what in w.backwards if len(what.losses) == 1]
    every = sum(len(window.backwards) for window in made)
    if len(made) > 1 and len(single) == every and all(loss.total < 0 for loss in single):
        yield _of(ASCENT, made[0], f"the weight of every token is negative, in {times(len(made))}")


def _of(rule: Rule, window: StepWindow, words: str) -> RuleFinding:
    end = window.end.line if window.end else None
    return RuleFinding(rule, RuleVerdict.UNUSUAL, words, window.backwards[0][0].line, end, window.step)


def _even(window: StepWindow) -> _Even | None:
    losses: list[LossWeights] = [loss for _, what in window.backwards for loss in what.losses]
    alike = are_microbatches(window.backwards) and len({what.inside_step for _, what in window.backwards}) == 1
    factor = _own_factor(window)
    if len(losses) != len(window.backwards) or not alike or not window.adds_up or factor is None:
        return None
    weights = [loss.weight for loss in losses if loss.weight and not loss.weighted and math.isfinite(loss.weight)]
    if len(weights) < len(losses) or not _alike(weights):
        return None
    tokens = tuple(loss.tokens for loss in losses)
    return _Even(window, abs(weights[0]) * factor, tokens, sum(loss.elements for loss in losses))


def _own_factor(window: StepWindow) -> float | None:
    """Return the factor that the loop has applied to all gradients before the clip; ``None`` if it cannot be told."""
    assert window.end is not None
    last, factor = window.backwards[-1][0], 1.0
    until = next((e for e, _ in window.clips if e.number > last.number), window.end)
    unscaled = window.unscaled
    parts = [(last.after, until.before)]
    if unscaled is not None and last.number < unscaled.number < until.number:
        parts = [(last.after, unscaled.before), (unscaled.after, until.before)]
    for before, after in parts:
        if before != after:
            factor *= size(after) / (size(before) or math.nan)
    return factor if math.isfinite(factor) and factor > 0 else None


def _alike(numbers: Sequence[float], tolerance: float = ALIKE) -> bool:
    return max(numbers) - min(numbers) <= tolerance * max(map(abs, numbers))


def _divisor(even: Sequence[_Even]) -> Iterator[RuleFinding]:
    totals = [one.total for one in even]
    padded = any(sum(one.tokens) < one.elements for one in even)
    by_elements = all(_alike([one.weight * one.elements, 1.0]) for one in even)
    twice = all(_alike([one.total * len(one.tokens), 1.0]) for one in even)
    if not padded or by_elements or twice or _alike(totals, DIFFERENT):
        return
    first = even[0].window
    each = [sum(one.tokens) / len(one.tokens) for one in even]
    weights = [one.weight * len(one.tokens) for one in even]
    spread = f"{min(totals):.3g} to {max(totals):.3g}"
    if not _alike(each, DIFFERENT) and (_alike([one.weight for one in even]) or _alike(weights)):
        words = f"the weights of a step's tokens sum to {spread}, as the number of tokens has it, in {times(len(even))}"
        yield _of(SUMMED, first, words)
        return
    counts = [_count(one) for one in even]
    different = [(one, count) for one, count in zip(even, counts, strict=True) if count not in (None, sum(one.tokens))]
    if None not in counts and len(different) * 2 > len(even):
        one, count = different[0]
        words = f"the loss is divided by {count}, and the window has {times(sum(one.tokens), 'token')}"
        alone = [i for i in range(min(len(o.tokens) for o in even)) if all(_is_of(o, i) for o in even)]
        if alone:
            words += f": {len(one.tokens)} times those of microbatch {alone[0]}"
        yield _of(ANOTHER_COUNT, one.window, f"{words}, in {times(len(different))} of {len(even)}")


def _count(one: _Even) -> int | None:
    """Return the whole number that the loss was divided by; ``None`` if it was none."""
    divisor = 1 / one.weight
    return round(divisor) if 1 < divisor < LARGEST_COUNT and abs(divisor - round(divisor)) < 0.01 else None


def _is_of(one: _Even, index: int) -> bool:
    return _alike([1 / one.weight, float(len(one.tokens) * one.tokens[index])])
