"""Rules on the exchange of gradients between ranks, and on weights that are no longer the same on all of them."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.events import Backward, StepMade
from gradparity.auditing.facts import RunFacts
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.scripts.ranks_side_by_side import OneStep, SameOptimizer, different, identical, same_optimizers
from gradparity.auditing.step_windows import WindowBackward, size

NOT_EXCHANGED = Rule(
    "GP751",
    "gradients-not-exchanged",
    "The ranks step on different gradients, so their weights drift apart. DistributedDataParallel exchanges gradients "
    "in the backward that follows its own forward outside no_sync(), and only those of parameters that required "
    "gradients when it was built.",
    "with nullcontext() if last_microbatch else model.no_sync():\n    loss = criterion(model(x), y)  # not its module\n"
    "    loss.backward()",
    right_in="ensembles and sweeps with a training on each rank, local SGD, experts or models split over ranks",
)
EVERY_MICROBATCH = Rule(
    "GP752",
    "exchanged-at-every-microbatch",
    "The gradients are exchanged after every microbatch, though only the sum of a window is used. The result is right, "
    "and the exchange costs as many times more as there are microbatches.",
    "with nullcontext() if last_microbatch else model.no_sync():\n    loss = criterion(model(x), y) / k\n"
    "    loss.backward()",
    right_in="training on one machine, if its exchange is hidden behind the backward",
)
CLIPPED_BEFORE = Rule(
    "GP754",
    "clipped-before-the-exchange",
    "Each rank clips by the norm of its own gradients, and only then are they exchanged. A rank with long gradients "
    "counts less than the others, and the mean is not clipped to the threshold.",
    "exchange(model)  # all_reduce, divided by the number of ranks\n"
    "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)",
    right_in="methods that limit the influence of each rank",
)
WEIGHTS_DIFFER = Rule(
    "GP756",
    "weights-differ-between-ranks",
    "The ranks exchange gradients, and apply them to different weights: these gradients belong to neither. A seed that "
    "differs by rank, a checkpoint that only one rank has loaded, or a step that only one rank made brings this about.",
    "torch.manual_seed(seed)  # the same on all ranks, before the model is built\n"
    "for p in model.parameters():\n    dist.broadcast(p.data, src=0)  # or DistributedDataParallel, which does it",
    right_in="ranks on devices of different kinds, which round differently",
)
NEVER_STEPS = Rule(
    "GP758",
    "rank-without-steps",
    "A rank computes gradients and never steps. Its weights stay where they began, and its gradients belong to them.",
    "optimizer.step()  # on every rank, not only on rank 0",
    right_in="one rank that steps and sends its weights to the others",
)


def of_ranks(all_facts: Sequence[RunFacts]) -> Iterator[RuleFinding]:
    """Yield what these rules find in the facts of all ranks, in order."""
    for optimizer in same_optimizers(all_facts):
        if optimizer.whole:
            yield from _not_exchanged(optimizer)
            yield from _every_microbatch(optimizer)
            yield from _clipped_before(optimizer)
            yield from _weights_differ(optimizer)
            yield from _never_steps(optimizer)


def _not_exchanged(optimizer: SameOptimizer) -> Iterator[RuleFinding]:
    found = [(one, different(one.looks)) for one in optimizer.steps]
    found = [(one, apart) for one, apart in found if apart]
    exchanged = any(identical(one.looks) or len(different(one.looks)) < _number(one) for one in optimizer.steps)
    alike = bool(optimizer.steps) and len({made.weights_before for made in optimizer.steps[0].made}) == 1
    if len(found) < 2 or not (exchanged or alike):  # trainings of their own, one a rank
        return
    one, apart = found[0]
    promised = bool(apart & optimizer.replicated)
    names = optimizer.stories[0].names
    which = "all gradients" if len(apart) == _number(one) else ", ".join(names[i] for i in sorted(apart)[:3])
    more = f" and {len(apart) - 3} more" if 3 < len(apart) < _number(one) else ""
    backwards = one.windows[0].backwards
    under = bool(backwards) and backwards[-1][1].exchange is False
    way = "; DDP's forward before this backward ran under no_sync" if promised and under else ""
    way = way or ("; DDP was to exchange them" if promised else "")
    words = f"ranks differ in {which}{more} at {times(len(found))} of {len(optimizer.steps)}{way}"
    verdict = RuleVerdict.WRONG if promised else RuleVerdict.UNUSUAL
    line, end = backwards[-1][0].line if backwards else one.ends[0].line, one.ends[0].line
    last = len(backwards) - 1 if len(backwards) > 1 else None
    yield RuleFinding(NOT_EXCHANGED, verdict, words, line, end, one.step, last, times=len(found))


def _number(one: OneStep) -> int:
    return sum(g is not None for g in one.ends[0].before)


def _every_microbatch(optimizer: SameOptimizer) -> Iterator[RuleFinding]:
    several = [one for one in optimizer.steps if _is_accumulated(one)]
    found = [one for one in several if all(map(_exchanged, one.microbatches))]
    if len(found) > 1 and len(found) == len(several):
        event, _ = found[0].microbatches[0][0]
        number = len(found[0].microbatches)
        words = f"the gradients are the same on all ranks after each of {number} microbatches, in {times(len(found))}"
        yield RuleFinding(
            EVERY_MICROBATCH, RuleVerdict.UNUSUAL, words, event.line, None, found[0].step, 0, times=len(found)
        )


def _is_accumulated(one: OneStep) -> bool:
    """Return whether the step is made of several microbatches of one line that add up."""
    lines = {event.line for window in one.windows for event, _ in window.backwards}
    return len(one.microbatches) > 1 and len(lines) == 1 and all(window.adds_up for window in one.windows)


def _exchanged(microbatch: Sequence[WindowBackward]) -> bool:
    """Return whether ranks with different losses have the same gradients after a microbatch."""
    return len({what.loss for _, what in microbatch}) > 1 and identical([event.after for event, _ in microbatch])


def _clipped_before(optimizer: SameOptimizer) -> Iterator[RuleFinding]:
    found = []
    for one in optimizer.steps:
        clips = [window.clips[-1] for window in one.windows if window.clips]
        if len(clips) < len(one.windows) or not identical(one.looks):
            continue
        reached = any(clip.threshold is not None and size(e.before) > clip.threshold for e, clip in clips)
        if reached and different([event.before for event, _ in clips]):
            found.append((one, clips))
    if len(found) > 1:
        one, clips = found[0]
        norms = " and ".join(f"{size(event.before):.4g}" for event, _ in clips[:2])
        words = f"ranks 0 and 1 clipped gradients of norm {norms}, and exchanged them after that, in"
        event = clips[0][0]
        yield RuleFinding(
            CLIPPED_BEFORE,
            RuleVerdict.UNUSUAL,
            f"{words} {times(len(found))}",
            event.line,
            one.ends[0].line,
            one.step,
            times=len(found),
        )


def _weights_differ(optimizer: SameOptimizer) -> Iterator[RuleFinding]:
    found = [
        one for one in optimizer.steps if identical(one.looks) and len({made.weights_before for made in one.made}) > 1
    ]
    if len(found) < 2:
        return
    one = found[0]
    first = one is optimizer.steps[0]
    rates = len({made.rates for made in one.made}) > 1
    since = "from the first step on" if first else f"since step {one.step}"
    words = f"the ranks step on the same gradients with different weights, {since}"
    if rates:
        words += ", and with different learning rates"
    verdict = RuleVerdict.WRONG if first or rates else RuleVerdict.UNUSUAL
    yield RuleFinding(WEIGHTS_DIFFER, verdict, words, one.ends[0].line, None, one.step, times=len(found))


def _never_steps(optimizer: SameOptimizer) -> Iterator[RuleFinding]:
    idle = [rank for rank, story in enumerate(optimizer.stories) if not story.steps]
    busy = [rank for rank, story in enumerate(optimizer.stories) if story.steps > 1]
    if not idle or not busy:
        return
    weights = [
        [e.what.weights for e in optimizer.stories[rank].events if isinstance(e.what, Backward)]
        for rank in (idle[0], busy[0])
    ]
    if not all(weights) or weights[0][-1] == weights[1][-1]:
        return
    steps = optimizer.stories[busy[0]].steps
    event = next(e for e in optimizer.stories[busy[0]].events if isinstance(e.what, StepMade))
    words = f"rank {idle[0]} made no step, and rank {busy[0]} made {steps}; their weights differ"
    verdict = RuleVerdict.WRONG if optimizer.replicated else RuleVerdict.UNUSUAL
    yield RuleFinding(NEVER_STEPS, verdict, words, event.line, optimizer.stories[idle[0]].made, times=steps)
