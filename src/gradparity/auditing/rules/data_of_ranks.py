"""Rules on the data of each rank: the weight of its tokens, batches that all ranks share, an order that repeats."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from gradparity.auditing.events import Backward, LoopEvent, LossWeights
from gradparity.auditing.facts import RunFacts
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.scripts.ranks_side_by_side import OneStep, SameOptimizer, identical, same_optimizers
from gradparity.auditing.watching.samplers import Pass

MEAN_OF_MEANS = Rule(
    "GP753",
    "mean-of-means-over-ranks",
    "Each rank averages its loss over its own tokens, and the exchange averages the ranks. A token on a rank with few "
    "of them weighs more than one on a rank with many.",
    "tokens = (labels != -100).sum()\ndist.all_reduce(tokens)\n"
    'loss = F.cross_entropy(logits, labels, reduction="sum") * dist.get_world_size() / tokens',
    right_in="a mean over sequences or documents instead of tokens",
    reported="https://github.com/vllm-project/speculators/pull/942",
)
SAME_BATCH = Rule(
    "GP755",
    "same-batch-on-all-ranks",
    "All ranks compute the same loss in every microbatch, so they train on the same samples: the others add nothing.",
    "sampler = DistributedSampler(dataset, shuffle=True)\n"
    "loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler)",
    right_in="models that are split over ranks, which then read the same batch",
)
SAME_ORDER = Rule(
    "GP757",
    "sampler-repeats-its-order",
    "DistributedSampler shuffles by its seed and the number of the epoch. Without set_epoch() every epoch has the same "
    "order, and the same samples meet in a batch.",
    "for epoch in range(epochs):\n    sampler.set_epoch(epoch)\n    for batch in loader: ...",
    right_in="runs that repeat one order on purpose",
    reported="https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.distributed.DistributedSampler",
)

ALIKE = 1e-3
"""Relative difference of weights that counts as rounding."""


def of_ranks(all_facts: Sequence[RunFacts]) -> Iterator[RuleFinding]:
    """Yield what these rules find in the facts of all ranks, in order."""
    for optimizer in same_optimizers(all_facts):
        exchanged = [one for one in optimizer.steps if identical(one.looks)]
        if optimizer.whole and len(exchanged) == len(optimizer.steps):
            yield from _mean_of_means(optimizer)
            yield from _same_batch(optimizer)


def _mean_of_means(optimizer: SameOptimizer) -> Iterator[RuleFinding]:
    found = []
    for one in optimizer.steps:
        ranks = [_losses(window.accumulated) for window in one.windows]
        totals = [sum(loss.total for _, loss in rank) for rank in ranks]
        tokens = [sum(loss.tokens for _, loss in rank) for rank in ranks]
        padded = any(loss.tokens < loss.elements for rank in ranks for _, loss in rank)
        even = all(ranks) and all(map(_even, ranks)) and all(tokens)
        if even and padded and len(set(tokens)) > 1 and _near(min(totals), max(totals)):
            found.append((one, tokens, ranks))
    if not found:
        return
    one, tokens, ranks = max(found, key=lambda each: max(each[1]) / min(each[1]))
    few, many = tokens.index(min(tokens)), tokens.index(max(tokens))
    yield RuleFinding(
        MEAN_OF_MEANS,
        RuleVerdict.WRONG,
        f"a token on rank {few} weighs {tokens[many] / tokens[few]:.3g} times one on rank {many}: they have "
        f"{tokens[few]} and {tokens[many]} tokens, and each rank's loss is a mean of its own, in {times(len(found))}",
        ranks[few][0][0].line,
        one.ends[0].line,
        one.step,
        times=len(found),
    )


def _losses(backwards: Sequence[tuple[LoopEvent, Backward]]) -> list[tuple[LoopEvent, LossWeights]]:
    """Return the loss of each backward of one rank; none if they are not all readable, or of several lines."""
    if any(len(what.losses) != 1 for _, what in backwards) or len({event.line for event, _ in backwards}) > 1:
        return []
    return [(event, what.losses[0]) for event, what in backwards]


def _even(losses: Sequence[tuple[LoopEvent, LossWeights]]) -> bool:
    """Return whether all tokens of a rank weigh the same; if not, another rule says so."""
    weights = [loss.weight for _, loss in losses if loss.weight is not None and not loss.weighted]
    return len(weights) == len(losses) and _near(min(weights), max(weights))


def _near(a: float, b: float) -> bool:
    return abs(a - b) <= ALIKE * max(abs(a), abs(b))


def _same_batch(optimizer: SameOptimizer) -> Iterator[RuleFinding]:
    microbatches = [(one, m) for one in optimizer.steps for m in one.microbatches]
    alike = all(len({what.loss for _, what in m}) == 1 for _, m in microbatches)
    losses = {m[0][1].loss for _, m in microbatches}
    if len(microbatches) > 2 and alike and len(losses) > 2:
        one: OneStep = microbatches[0][0]
        event = microbatches[0][1][0][0]
        words = f"the loss is the same on all {len(one.windows)} ranks, bit for bit, in {len(microbatches)} of "
        words += times(len(microbatches), "backward")
        yield RuleFinding(SAME_BATCH, RuleVerdict.UNUSUAL, words, event.line, times=len(microbatches))


def of_run(facts: RunFacts) -> Iterator[RuleFinding]:
    """Yield the samplers that drew one order twice, with backwards after each time."""
    backwards = [e.number for s in facts.stories for e in s.events if isinstance(e.what, Backward)]
    until = [later.after for _, later in pairwise(facts.passes)] + [max(backwards, default=0)]
    trained = [p for p, end in zip(facts.passes, until, strict=False) if any(p.after < n <= end for n in backwards)]
    drawn: dict[tuple[int, int, int], list[Pass]] = {}
    for one in trained:
        if one.shuffles:
            drawn.setdefault((one.sampler, one.seed, one.epoch), []).append(one)
    again = [passes for passes in drawn.values() if len(passes) > 1]
    if again:
        number = len(again[0])
        words = f"a DistributedSampler drew the order of epoch {again[0][0].epoch} {number} times, and the loop trained"
        words += " on it each time"
        yield RuleFinding(SAME_ORDER, RuleVerdict.UNUSUAL, words, again[0][1].line, times=number)
