"""Rules on the weight of tokens, samples and pixels in the loss.

In a window that is one mean, all tokens weigh the same and the weights sum to 1. Weights are compared between losses of
one line only, and called wrong only if the difference is explained by something that should not matter: the number of
tokens in a microbatch, or the number of microbatches in a window.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradparity.auditing.events import Backward, LoopEvent, LossWeights
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, are_microbatches

MEAN_OF_MEANS = Rule(
    "GP401",
    "mean-of-means",
    "Each microbatch is averaged over its own tokens, and the averages are averaged. A token of a short microbatch "
    "then weighs more than one of a long one, and the gradient depends on how the batch was cut.",
    "tokens = sum((batch.labels != -100).sum() for batch in window)\nfor batch in window:\n"
    '    loss = F.cross_entropy(model(batch.x), batch.labels, reduction="sum") / tokens\n    loss.backward()',
    right_in="a mean over sequences or documents instead of tokens",
    reported="https://github.com/huggingface/transformers/issues/34242",
)
PARTIAL = Rule(
    "GP402",
    "short-window-divided-by-full-length",
    "The last window of an epoch has fewer microbatches and is divided by the number of a full one, so its update is "
    "too small.",
    "length = min(k, len(batches) - start)\n(loss / length).backward()",
    reported="https://github.com/modelscope/ms-swift/pull/10084",
)
TOO_LONG = Rule(
    "GP403",
    "window-longer-than-its-divisor",
    "Microbatches that no step has used stay in p.grad, such as the last ones of an epoch, and enter a later window. "
    "It holds more gradients than it is divided by.",
    "if (i + 1) % k == 0 or i + 1 == len(batches):\n    optimizer.step()\n    optimizer.zero_grad()",
    reported="https://github.com/Lightning-AI/pytorch-lightning/issues/19987",
)
UNDIVIDED = Rule(
    "GP404",
    "accumulated-without-a-division",
    "Each microbatch is a mean, and their gradients are added without a division. The gradient is that of the mean "
    "times the number of microbatches.",
    "(loss / k).backward()",
    right_in="a learning rate that was tuned for the sum",
    reported="https://github.com/huggingface/transformers/issues/37110",
)
PADDING = Rule(
    "GP405",
    "mean-over-padding",
    "The loss is zero at padded positions, and its mean divides by them too. A batch with one long sequence gets a "
    "smaller gradient.",
    "loss = (loss * mask).sum() / mask.sum()",
    reported="https://github.com/huggingface/lerobot/pull/3377",
)
DIVIDED_TWICE = Rule(
    "GP406",
    "divided-twice",
    "The weights of a window sum to one over the number of its microbatches: the loss was divided twice.",
    "(loss / k).backward()  # once; Accelerate, Fabric and Lightning may do it for you",
    right_in="a loss with a coefficient that happens to be that number",
)

ALIKE = 1e-3
"""Relative difference of weights that counts as rounding: half precision has about three digits."""


@dataclass(frozen=True)
class _Accumulated:
    """A window whose microbatches all come from one line, with one readable loss each."""

    window: StepWindow
    parts: tuple[tuple[LoopEvent, LossWeights], ...]

    @property
    def total(self) -> float:
        return sum(loss.total for _, loss in self.parts)

    @property
    def added_by_torch(self) -> bool:
        """Return whether p.grad holds the sum of all microbatches, and no mean of them that the loop has written."""
        written = [e.what.written for e, _ in self.parts if isinstance(e.what, Backward) and e.what.written]
        return not any(one.dropped or one.other for one in written)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    readable = [one for one in map(_readable, windows) if one is not None]
    yield from _mean_of_means(readable)
    yield from _lengths(readable)
    yield from _padding(readable)


def _readable(window: StepWindow) -> _Accumulated | None:
    backwards = window.accumulated
    if window.made is None or not backwards or not are_microbatches(backwards):
        return None
    if any(len(what.losses) != 1 for _, what in backwards) or not window.adds_up:
        return None
    return _Accumulated(window, tuple((e, what.losses[0]) for e, what in backwards))


def _near(a: float, b: float) -> bool:
    return math.isfinite(a + b) and abs(a - b) <= ALIKE * max(abs(a), abs(b))


def _mean_of_means(readable: Sequence[_Accumulated]) -> Iterator[RuleFinding]:
    found = []
    for one in readable:
        losses = [loss for _, loss in one.parts]
        counts = [loss.tokens for loss in losses]
        if len(losses) < 2 or not all(counts) or any(loss.weighted or loss.weight is None for loss in losses):
            continue
        if not _same_parameters(one):  # tasks with heads of their own, each with its own labels
            continue
        padded = any(loss.tokens < loss.elements for loss in losses)
        if padded and len(set(counts)) > 1 and all(_near(loss.total, losses[0].total) for loss in losses):
            found.append((one, max(counts) / min(counts), counts))
    if not found:
        return
    one, ratio, counts = max(found, key=lambda each: each[1])
    index = counts.index(min(counts))
    yield RuleFinding(
        MEAN_OF_MEANS,
        RuleVerdict.WRONG,
        f"a token of microbatch {index} weighs {ratio:.3g} times one of microbatch {counts.index(max(counts))}: they "
        f"have {min(counts)} and {max(counts)} tokens, and each microbatch is a mean of its own, in "
        f"{times(len(found), 'window')}",
        one.parts[index][0].line,
        None,
        one.window.step,
        index,
        times=len(found),
    )


def _lengths(readable: Sequence[_Accumulated]) -> Iterator[RuleFinding]:
    """Compare the sum of a window's weights with the number of its microbatches."""
    readable = [one for one in readable if one.added_by_torch]
    if len(readable) < 2:
        return
    (usual, often), *_ = Counter(len(one.parts) for one in readable).most_common(1)
    # Without windows in which tasks have heads of their own.
    full = [one for one in readable if len(one.parts) == usual and _same_parameters(one)]
    if often < 2 or usual < 2 or len(full) < 2 or not all(_near(one.total, full[0].total) for one in full):
        return
    total = full[0].total
    by_hand = _factor(full[0].window)
    if _near(total, usual) and _near(by_hand * usual, 1.0):
        return  # the loop divides the gradients instead of the loss
    if _near(total, usual**2):
        words = f"the weights of the {usual} microbatches of a window sum to {usual**2}"
        telling = usual not in (2, 5, 10)  # these are coefficients that people like
        verdict = RuleVerdict.WRONG if telling else RuleVerdict.UNUSUAL
        yield _of(UNDIVIDED, verdict, full, f"{words}: each loss was multiplied by {usual} instead of divided")
    elif _near(total, 1.0) and _near(by_hand * usual, 1.0):
        words = f"the losses were divided by {usual}, and their gradients again"
        yield _of(DIVIDED_TWICE, RuleVerdict.WRONG, full, words)
    elif _near(total, usual):
        yield _of(
            UNDIVIDED, RuleVerdict.UNUSUAL, full, f"the weights of the {usual} microbatches of a window sum to {usual}"
        )
    elif _near(total, 1 / usual):
        words = f"the weights of the {usual} microbatches of a window sum to 1/{usual}"
        yield _of(DIVIDED_TWICE, RuleVerdict.UNUSUAL, full, words)
    if not _near(total, 1.0):
        return
    for rule, others in (
        (PARTIAL, [one for one in readable if len(one.parts) < usual]),
        (TOO_LONG, [one for one in readable if len(one.parts) > usual]),
    ):
        broken = [one for one in others if _near(one.total, len(one.parts) / usual)]
        if broken:
            length = len(broken[0].parts)
            words = f"a window of {length} microbatches was divided by {usual}, so its weights sum to {length}/{usual}"
            yield _of(rule, RuleVerdict.WRONG, broken, f"{words}; the other {len(full)} windows sum to 1")


def _same_parameters(one: _Accumulated) -> bool:
    """Return whether each microbatch of a window has changed the gradients of the same parameters."""
    changed = [
        tuple(b is not None and b != a for a, b in zip(event.before, event.after, strict=False))
        for event, _ in one.parts
    ]
    return len(set(changed)) == 1


def _factor(window: StepWindow) -> float:
    """Return the factor that the loop has multiplied all gradients with before the step; 1 if there is not one."""
    if window.end is None or window.clips or window.unscaled is not None:
        return 1.0
    pairs = zip(window.backwards[-1][0].after, window.end.before, strict=False)
    factors = [abs(b.norm / a.norm) for a, b in pairs if a and b and a.norm]
    alike = len(factors) > 1 and max(factors) - min(factors) <= ALIKE * max(factors)
    return factors[0] if alike else 1.0


def _of(rule: Rule, verdict: RuleVerdict, found: Sequence[_Accumulated], words: str) -> RuleFinding:
    window = found[0].window
    end = window.end.line if window.end else None
    line = found[0].parts[0][0].line
    return RuleFinding(
        rule, verdict, f"{words}, in {times(len(found), 'window')}", line, end, window.step, times=len(found)
    )


def _padding(readable: Sequence[_Accumulated]) -> Iterator[RuleFinding]:
    found, sizes = [], set()
    for one in readable:
        for event, loss in one.parts:
            masked = 0 < loss.tokens < loss.elements and loss.weight is not None and not loss.mean
            if masked and loss.weight is not None and _near(loss.weight * loss.elements * len(one.parts), 1.0):
                found.append((one, event, loss))
                sizes.add(loss.elements)
            elif loss.tokens != loss.elements:
                return
    if len(found) < 2 or len({loss.tokens for _, _, loss in found}) < 2:
        return
    one, event, loss = max(found, key=lambda each: each[2].elements / each[2].tokens)
    yield RuleFinding(
        PADDING,
        RuleVerdict.WRONG if len(sizes) > 1 else RuleVerdict.UNUSUAL,
        f"the mean divides by all {loss.elements} positions, of which {loss.elements - loss.tokens} are masked: the "
        f"weights sum to {loss.total:.3g} instead of 1, and differently in each batch",
        event.line,
        None,
        one.window.step,
        times=len(found),
    )
