"""Rules on layers that a backward runs once more, and on statistics and dropout that go their own way."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from gradparity.auditing.events import Backward, LoopEvent, StepMade
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow

MOVED_IN_THE_BACKWARD = Rule(
    "GP608",
    "batch-normalization-moves-in-the-backward",
    "A checkpoint recomputes its block in the backward, and batch normalization inside it counts the batch once more. "
    "Its running statistics move twice as fast.",
    "checkpoint blocks without batch normalization in them",
    right_in="checkpoints whose batch normalization is meant to see a batch twice",
    reported="https://github.com/pytorch/pytorch/issues/62471",
)
STATISTICS_LOST = Rule(
    "GP609",
    "batch-normalization-starts-again",
    "The number of batches that batch normalization has counted fell, and the weights stayed: its running statistics "
    "were not restored with them.",
    "model.load_state_dict(checkpoint['model'])  # parameters and buffers",
    right_in="statistics that are estimated anew on purpose",
)
DROPOUT_OFF = Rule(
    "GP610",
    "dropout-switched-off",
    "eval() was called on dropout layers of a model that trains, so it trains without them.",
    "model.train()",
    right_in="a training without dropout on purpose",
)
DREW = Rule(
    "GP611",
    "random-numbers-drawn-in-the-backward",
    "The backward drew random numbers: a checkpoint that does not keep their state recomputes with different dropout "
    "masks than its forward had. The gradient is that of another loss.",
    "checkpoint(block, x, use_reentrant=False)  # preserve_rng_state=True is the default",
    right_in="noise that hooks add to the gradients; stochastic rounding",
    reported="https://github.com/pytorch/pytorch/issues/190717",
)
STALE = Rule(
    "GP612",
    "weights-cast-before-the-last-step",
    "The graph reads half-precision copies of weights that were made before the weights were last written. One "
    "autocast block lasts over several steps, and its cache is emptied only at its end.",
    "for batch in batches:\n    with torch.autocast(device, dtype):\n        loss = criterion(model(x), y)",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    backwards = [(w, e, what) for w in windows if w.made is not None for e, what in w.backwards]
    counted = [one for one in backwards if one[2].signs.recounted > 0]
    if len(counted) > 1:
        words = "batch normalization counted the batch while the backward ran"
        yield _of(MOVED_IN_THE_BACKWARD, counted, words)
    drew = [one for one in backwards if one[2].signs.drew]
    if len(drew) > 1 and len(drew) == len(backwards):
        yield _of(DREW, drew, "random numbers were drawn while the backward ran")
    off = [one for one in backwards if one[2].modes is not None and one[2].modes.silenced]
    if len({window.step for window, _, _ in off}) > 1 and len(off) == len(backwards):
        silenced = off[0][2].modes
        assert silenced is not None
        yield _of(DROPOUT_OFF, off, f"{times(silenced.silenced, 'dropout layer')} in evaluation mode by eval()")
    stale = [one for one in backwards if one[2].signs.stale]
    if stale:
        number = times(stale[0][2].signs.stale, "weight")
        words = f"{number} were cast to half precision before the last step wrote them"
        yield _of(STALE, stale, words, RuleVerdict.WRONG)
    yield from _lost(story)


Found = Sequence[tuple[StepWindow, LoopEvent, Backward]]


def _of(rule: Rule, found: Found, words: str, verdict: RuleVerdict = RuleVerdict.UNUSUAL) -> RuleFinding:
    window, event, _ = found[0]
    sentence = f"{words}, in {times(len(found), 'backward')}"
    return RuleFinding(rule, verdict, sentence, event.line, None, window.step, times=len(found))


def _lost(story: Story) -> Iterator[RuleFinding]:
    events = [e for e in story.events if isinstance(e.what, (Backward, StepMade))]
    weights: object = ""
    last: Backward | None = None
    for before, event in pairwise([None, *events]):
        if before is not None and isinstance(before.what, StepMade):
            weights = before.what.weights_after
        if not isinstance(event, LoopEvent) or not isinstance(event.what, Backward):
            continue
        now, then = event.what.modes, last.modes if last is not None else None
        kept = event.what.weights == (weights or (last.weights if last is not None else ""))
        if now is not None and then is not None and kept and now.norms == then.norms and now.counted < then.counted:
            words = f"batch normalization had counted {then.counted} batches, and now {now.counted}; the weights stayed"
            yield RuleFinding(STATISTICS_LOST, RuleVerdict.UNUSUAL, words, event.line)
            return
        last = event.what
