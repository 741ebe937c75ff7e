"""Rules on training and evaluation mode."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from gradparity.auditing.events import LoopEvent, Modes
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow

FROZEN_RETRAINED = Rule(
    "GP601",
    "frozen-module-back-in-training-mode",
    "train() reaches every module inside the one it is called on, also a frozen teacher that had been put into "
    "evaluation. Its dropout and batch normalization work again, and its outputs are random.",
    "model.train()\nmodel.teacher.eval()",
    reported="https://github.com/yxuansu/TaCL/issues/11",
)
NEVER_BACK = Rule(
    "GP602",
    "trained-in-evaluation-mode",
    "After an evaluation the model was not put back into training mode. From then on it trains without dropout and "
    "with the running statistics of batch normalization.",
    "model.eval()\nvalidate(model)\nmodel.train()",
)

NORM_RETRAINED = Rule(
    "GP621",
    "frozen-batch-normalization-trains-again",
    "The loop puts its layers of batch normalization into evaluation, and train() of the model puts them back. Their "
    "statistics move again.",
    "model.train()\nfor layer in model.modules():\n    if isinstance(layer, nn.BatchNorm2d):\n        layer.eval()",
    right_in="batch normalization that is fixed for some epochs only",
)

ALWAYS_EVALUATING = Rule(
    "GP603",
    "layers-in-evaluation-mode",
    "Dropout or batch normalization is in evaluation mode in every backward.",
    "model.train()",
    right_in="fine-tuning with fixed batch normalization; training without dropout",
)
SOME_STAY = Rule(
    "GP604",
    "layers-stay-in-evaluation-mode",
    "Some layers were put into evaluation mode in the middle of the training, and stay in it.",
    "model.train()",
    right_in="batch normalization that is fixed after some epochs",
)
COUNTED_MORE = Rule(
    "GP605",
    "batch-normalization-moved-without-a-backward",
    "Batch normalization counted more batches than backwards followed: a validation ran in training mode, or a "
    "checkpoint has recomputed the layer. Its running statistics are of other data.",
    "model.eval()\nwith torch.no_grad():\n    validate(model)\nmodel.train()",
    right_in="networks that run several times for one backward; pictures that are drawn in training mode; a refresh of "
    "the statistics",
)
SAME_NUMBERS = Rule(
    "GP606",
    "random-numbers-repeat",
    "The state of the random numbers returned to one that an earlier step had begun with, so dropout masks repeat.",
    "torch.manual_seed(seed)  # once, before the training",
    right_in="gradient caching and checkpoints, which repeat a forward",
)
SCALER_ALONE = Rule(
    "GP607",
    "scaler-without-half-precision",
    "The loss is scaled, but nothing in its graph has half precision: autocast is missing around the forward.",
    "with torch.autocast(device, dtype=torch.float16):\n    loss = criterion(model(x), y)",
)


def of_run(facts: RunFacts) -> Iterator[RuleFinding]:
    """Yield the modules that were put back into training mode from outside."""
    for module in facts.retrained:
        yield RuleFinding(
            FROZEN_RETRAINED,
            RuleVerdict.WRONG,
            f"{module.name} was put into evaluation at {module.evaluated}, and this train() put it back, though no "
            f"backward trains it; {times(module.backwards, 'backward')} followed",
            module.trained,
            module.evaluated,
            times=module.backwards,
        )

    if facts.norms:
        first = next((one for one in facts.norms if not one.fixed_before), facts.norms[0])
        sentence = (
            f"{times(len(facts.norms), 'layer')} of batch normalization had been put into evaluation at "
            f"{first.evaluated}, and this train() put them back; {times(first.backwards, 'backward')} followed"
        )
        never = "" if first.fixed_before else ", and none ran before"
        verdict = RuleVerdict.UNUSUAL if first.fixed_before else RuleVerdict.WRONG
        yield RuleFinding(NORM_RETRAINED, verdict, sentence + never, first.trained, first.evaluated)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    backwards = [(w, e, what) for w in windows if w.made is not None for e, what in w.backwards]
    yield from _evaluating([(w, e, what.modes) for w, e, what in backwards if what.modes is not None])
    yield from _counted(windows)
    yield from _repeated(windows)
    bare = [(w, e) for w, e, what in backwards if what.scales and not what.half and not what.signs.opaque]
    if len(bare) > 1 and len(bare) == sum(bool(what.scales) for _, _, what in backwards):
        words = f"the loss is scaled, and no number in its graph has half precision, in {times(len(bare), 'backward')}"
        yield RuleFinding(SCALER_ALONE, RuleVerdict.UNUSUAL, words, bare[0][1].line, None, bare[0][0].step)


def _evaluating(modes: Sequence[tuple[StepWindow, LoopEvent, Modes]]) -> Iterator[RuleFinding]:
    """Yield a model, or layers, in evaluation mode from some backward on to the last."""
    first = next((i for i, (_, _, mode) in enumerate(modes) if mode.evaluating), None)
    if first is None or not all(mode.evaluating for _, _, mode in modes[first:]):
        return
    window, event, mode = modes[first]
    words = f"{times(mode.evaluating, 'layer')} (dropout, batch normalization) in evaluation mode"
    if len({w.step for w, _, _ in modes[first:]}) < 2:
        return
    if not first:
        yield RuleFinding(ALWAYS_EVALUATING, RuleVerdict.UNUSUAL, f"{words} in every backward", event.line)
        return
    whole = not any(later.in_train for _, _, later in modes[first:]) and all(m.in_train for _, _, m in modes[:first])
    rule, verdict = (NEVER_BACK, RuleVerdict.WRONG) if whole else (SOME_STAY, RuleVerdict.UNUSUAL)
    again = "; train() was not called again" if whole else ""
    sentence = f"{words} from here on, and in training mode before{again}"
    yield RuleFinding(rule, verdict, sentence, event.line, None, window.step, times=len(modes) - first)


def _counted(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Compare how far batch normalization counts from one backward to the next, in training mode."""
    seen = [
        (w, e, what.modes)
        for w in windows
        for e, what in w.backwards
        if what.modes is not None and what.modes.norms and not what.modes.evaluating
    ]
    moved = [
        (b[0], b[1], (b[2].counted - a[2].counted) / b[2].norms) for a, b in pairwise(seen) if a[2].norms == b[2].norms
    ]
    more = []
    for line in dict.fromkeys(
        event.line for _, event, _ in moved
    ):  # a critic's own loss runs it more often than others
        own = [one for one in moved if one[1].line == line]
        usual = sorted(count for _, _, count in own)[len(own) // 2]
        if usual <= 1 and len(own) > 2:
            more += [(*one, usual) for one in own if one[2] > 1]
    if more:
        window, event, count, usual = more[0]
        words = f"batch normalization counted {count:g} batches before this backward"
        sentence = f"{words}, and {usual:g} before most others of this line"
        yield RuleFinding(COUNTED_MORE, RuleVerdict.UNUSUAL, sentence, event.line, None, window.step, times=len(more))


def _repeated(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Find a state of the random numbers that comes back in another window though numbers were drawn in between."""
    first: dict[str, int] = {}
    last = ""
    found = []
    for window in windows:
        for event in window.events:
            if event.random != last and first.get(event.random, window.step) != window.step:
                found.append((window, event))
            first.setdefault(event.random, window.step)
            last = event.random
    steps = {window.step for window, _ in found}
    if len(steps) > 1:
        window, event = found[0]
        words = f"the random numbers returned to a state of an earlier step, in {times(len(steps))}"
        yield RuleFinding(SAME_NUMBERS, RuleVerdict.UNUSUAL, words, event.line, None, window.step, times=len(steps))
