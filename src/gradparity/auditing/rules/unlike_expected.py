"""Rules on what was meant, where the user says it: ``--expect accumulation_steps=4,max_norm=1.0``."""

from collections.abc import Iterator, Mapping, Sequence

from gradparity.auditing.events import ClipCalled, LoopEvent, StepMade
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.rules.expected import Expected
from gradparity.auditing.rules.loss_scale import factor_of
from gradparity.auditing.step_windows import StepWindow, size, windows

ACCUMULATION = Rule(
    "GP001",
    "other-accumulation-steps",
    "The loop makes a step after a different number of microbatches than was meant.",
    "if (i + 1) % accumulation_steps == 0:\n    optimizer.step()\n    optimizer.zero_grad()",
)
THRESHOLD = Rule(
    "GP002",
    "other-threshold",
    "The gradients are clipped to a different norm than was meant, or not at all.",
    "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)",
)
DECAY = Rule(
    "GP003",
    "other-weight-decay",
    "No group of the optimizer has the weight decay that was meant, or one has a different one.",
    "torch.optim.AdamW(groups, weight_decay=weight_decay)",
)
RATE = Rule(
    "GP004",
    "other-learning-rate",
    "The largest learning rate of the watched steps is not the one that was meant.",
    "torch.optim.AdamW(groups, lr=learning_rate)",
)
OPTIMIZER = Rule(
    "GP005",
    "other-optimizer",
    "No optimizer of this class made a step.",
    "optimizer = torch.optim.AdamW(model.parameters())",
)
PRECISION = Rule(
    "GP006",
    "other-precision",
    "The forward computes in a different precision than was meant.",
    "with torch.autocast(device, dtype=torch.bfloat16):\n    loss = criterion(model(x), y)",
)
VECTORS = Rule(
    "GP007",
    "vectors-decay",
    "Biases or normalization gains decay, which were meant not to.",
    "groups = [\n    {'params': [p for p in parameters if p.dim() > 1], 'weight_decay': weight_decay},\n"
    "    {'params': [p for p in parameters if p.dim() < 2], 'weight_decay': 0.0},\n]",
)
OPTION = Rule(
    "GP008",
    "other-option-of-the-optimizer",
    "Momentum or amsgrad of the optimizer is not what was meant.",
    "torch.optim.AdamW(groups, betas=(momentum, 0.999), amsgrad=True)",
)
FROZEN = Rule(
    "GP009",
    "other-number-of-frozen-parameters",
    "The number of parameters of the optimizer that need no gradient, and so stay as they are, is not the one meant.",
    "layer.requires_grad_(True)",
)

HALVES = ("float16", "bfloat16")


def of_run(facts: RunFacts, meant: Expected) -> Iterator[RuleFinding]:
    """Yield what differs from what was meant."""
    stories = [story for story in facts.stories if story.steps]
    if meant.optimizer_class is not None and stories and all(story.name != meant.optimizer_class for story in stories):
        names = " and ".join(story.name for story in stories)
        sentence = f"the training steps with {names}, and {meant.optimizer_class} was meant"
        yield RuleFinding(OPTIMIZER, RuleVerdict.WRONG, sentence, stories[0].made)
    for story in stories:
        if meant.optimizer_class in (None, story.name):
            own = [window for window in windows(story) if window.made is not None]
            yield from _accumulation(own, meant)
            yield from _threshold(own, meant)
            yield from _hyperparameters(story, meant)
            yield from _options(story, meant)
            yield from _precision(own, meant)


def _accumulation(own: Sequence[StepWindow], meant: Expected) -> Iterator[RuleFinding]:
    if meant.accumulation_steps is None:
        return
    lengths = [_microbatches(window, meant.accumulation_steps) for window in own]
    usual = max(set(lengths), key=lengths.count)
    pairs = list(zip(own, lengths, strict=True))
    other = [w for w, n in pairs if n > meant.accumulation_steps or usual != meant.accumulation_steps]
    if other and other[0].end is not None:
        number = times(len(other[0].backwards), "backward")
        sentence = (
            f"{number} in this step, and {meant.accumulation_steps} were meant, in {times(len(other))} of {len(own)}"
        )
        yield RuleFinding(
            ACCUMULATION, RuleVerdict.WRONG, sentence, other[0].end.line, step=other[0].step, times=len(other)
        )


def _microbatches(window: StepWindow, meant: int) -> int:
    """Return the number of backwards; or of losses, if they were added up and differentiated at once."""
    losses = sum(len(what.losses) for _, what in window.backwards)
    return losses if losses == meant or (len(window.backwards) == 1 and 1 < losses < meant) else len(window.backwards)


def _threshold(own: Sequence[StepWindow], meant: Expected) -> Iterator[RuleFinding]:
    if meant.max_norm is None:
        return
    clips = [(w, e, e.what) for w in own for e in w.events if isinstance(e.what, ClipCalled)]
    other = [(w, e, clip) for w, e, clip in clips if clip.threshold not in (None, *_limits(w, e, meant.max_norm))]
    if other:
        window, event, clip = other[0]
        sentence = f"clipped to {clip.threshold:g}, and {meant.max_norm:g} was meant"
        yield RuleFinding(THRESHOLD, RuleVerdict.WRONG, sentence, event.line, step=window.step, times=len(other))
    in_another_way = [(w, e, clip) for w, e, clip in clips if meant.max_norm and (clip.by_value or clip.norm_type != 2)]
    if in_another_way and not other:
        window, event, clip = in_another_way[0]
        way = "by value" if clip.by_value else f"by a norm of type {clip.norm_type:g}"
        sentence = f"clipped {way}, and the L2 norm was meant"
        yield RuleFinding(
            THRESHOLD, RuleVerdict.WRONG, sentence, event.line, step=window.step, times=len(in_another_way)
        )
    longer = [w for w in own if not clips and w.end is not None and meant.max_norm and _long(w, meant.max_norm)]
    if longer and longer[0].end is not None:
        norm = size(longer[0].end.before)
        sentence = f"the step read gradients of norm {norm:.4g}, and a clip to {meant.max_norm:g} was meant"
        yield RuleFinding(
            THRESHOLD, RuleVerdict.WRONG, sentence, longer[0].end.line, step=longer[0].step, times=len(longer)
        )


def _limits(window: StepWindow, event: LoopEvent, max_norm: float) -> tuple[float, ...]:
    """Return the thresholds that mean this norm: before ``unscale_`` also the norm times the loss scale."""
    scaled = window.unscaled is None or window.unscaled.number > event.number
    return (max_norm, max_norm * factor_of(window)) if scaled else (max_norm,)


def _long(window: StepWindow, max_norm: float) -> bool:
    assert window.end is not None
    assert window.made is not None
    return not window.made.skipped and size(window.end.before) > max_norm * 1.01


def _hyperparameters(story: Story, meant: Expected) -> Iterator[RuleFinding]:
    decays = {g["weight_decay"] for g in story.groups if "weight_decay" in g}
    if meant.weight_decay is not None and decays - {0} != ({meant.weight_decay} - {0.0}):
        seen = " and ".join(f"{decay:g}" for decay in sorted(decays, key=str) if isinstance(decay, (int, float)))
        sentence = f"weight decay {seen or 'none'}, and {meant.weight_decay:g} was meant"
        yield RuleFinding(DECAY, RuleVerdict.WRONG, sentence, story.made)
    yield from _rate(story, meant)


def _rate(story: Story, meant: Expected) -> Iterator[RuleFinding]:
    """Compare the largest learning rate; one that still rises when the watching ends may be smaller."""
    steps = [(e, max(e.what.rates)) for e in story.events if isinstance(e.what, StepMade) and e.what.rates]
    if meant.learning_rate is None or not steps:
        return
    rates = [rate for _, rate in steps]
    rising = len(rates) < 2 or min(rates) < rates[-1] == max(rates)
    different = abs(max(rates) - meant.learning_rate) > 1e-6 * meant.learning_rate
    if different and (max(rates) > meant.learning_rate or not rising):
        sentence = f"the largest learning rate was {max(rates):.4g}, and {meant.learning_rate:g} was meant"
        yield RuleFinding(RATE, RuleVerdict.WRONG, sentence, steps[0][0].line, times=len(steps))


def _options(story: Story, meant: Expected) -> Iterator[RuleFinding]:
    """Compare momentum, amsgrad, decay of vectors, and frozen parameters."""
    for group, sizes in zip(story.groups, story.dimensions, strict=False):
        momentum = group.get("momentum", next(iter(_betas(group)), None))
        if meant.momentum is not None and momentum != meant.momentum:
            sentence = f"momentum {momentum}, and {meant.momentum:g} was meant"
            yield RuleFinding(OPTION, RuleVerdict.WRONG, sentence, story.made)
            break
        if meant.amsgrad is not None and bool(group.get("amsgrad")) != (meant.amsgrad == "yes"):
            sentence = f"{'no ' if meant.amsgrad == 'yes' else ''}amsgrad, and the contrary was meant"
            yield RuleFinding(OPTION, RuleVerdict.WRONG, sentence, story.made)
            break
        if meant.no_decay is not None and group.get("weight_decay") and any(size == 1 for size in sizes):
            number = times(sum(size == 1 for size in sizes), "vector")
            sentence = f"{number} decay by {group['weight_decay']}, and none was meant to"
            yield RuleFinding(VECTORS, RuleVerdict.WRONG, sentence, story.made)
            break
    frozen = sum(not trained for trained in story.trained)
    if meant.frozen is not None and frozen != meant.frozen:
        names = [name for name, trained in zip(story.names, story.trained, strict=False) if not trained]
        which = f" ({', '.join(names[:3])})" if names else ""
        sentence = (
            f"{times(frozen, 'parameter')} of the optimizer need no gradient{which}, and {meant.frozen} were meant"
        )
        yield RuleFinding(FROZEN, RuleVerdict.WRONG, sentence, story.made)


def _betas(group: Mapping[str, object]) -> tuple[object, ...]:
    betas = group.get("betas")
    return betas if isinstance(betas, tuple) else ()


def _precision(own: Sequence[StepWindow], meant: Expected) -> Iterator[RuleFinding]:
    if meant.precision is None:
        return
    names = {"fp16": {"float16"}, "bf16": {"bfloat16"}, "fp32": set[str]()}
    for window in own:
        for event, what in window.backwards:
            halves = what.signs.casts | {g.dtype for g in event.after if g is not None and g.dtype in HALVES}
            if halves != names[meant.precision] and not (what.signs.opaque and not halves):
                seen = " and ".join(sorted(halves)) or "no half precision"
                sentence = f"the forward computes in {seen}, and {meant.precision} was meant"
                yield RuleFinding(PRECISION, RuleVerdict.WRONG, sentence, event.line, step=window.step)
                return
