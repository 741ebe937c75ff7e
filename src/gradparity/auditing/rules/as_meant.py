"""Rules on what was meant, where the user says it: ``--expect accumulation_steps=4,max_norm=1.0``."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from gradparity.auditing.events import Account, ClipCalled, StepMade, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.windows import StepWindow, size, windows
from gradparity.errors import UserError

ACCUMULATION = Rule(
    "GP001",
    "other-accumulation-steps",
    "The loop makes a step after another number of microbatches than was meant.",
    "if (i + 1) % accumulation_steps == 0:\n    optimizer.step()\n    optimizer.zero_grad()",
)
THRESHOLD = Rule(
    "GP002",
    "other-threshold",
    "The gradients are clipped to another norm than was meant, or not at all.",
    "torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)",
)
DECAY = Rule(
    "GP003",
    "other-weight-decay",
    "No group of the optimizer has the weight decay that was meant, or one has another.",
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


@dataclass(frozen=True)
class Expected:
    """The words of the user on what was meant. ``None`` stands for nothing said."""

    accumulation_steps: int | None = None
    """Microbatches of an optimizer step; the last one of an epoch may have fewer."""
    max_norm: float | None = None
    """The L2 norm to which all gradients are clipped; 0 if they are not."""
    weight_decay: float | None = None
    """The weight decay of the groups that have one."""
    learning_rate: float | None = None
    """The largest learning rate of the watched steps."""
    optimizer_class: str | None = None
    """The class of the optimizer."""


def expected(text: str) -> Expected:
    """Read ``accumulation_steps=4,max_norm=1.0``.

    Raises:
        UserError: for a name that is not known, or a value that is no number.
    """
    kinds = {
        "accumulation_steps": int,
        "max_norm": float,
        "weight_decay": float,
        "learning_rate": float,
        "optimizer_class": str,
    }
    found: dict[str, object] = {}
    for item in filter(None, text.split(",")):
        name, _, value = item.partition("=")
        if name not in kinds:
            names = ", ".join(field.name for field in fields(Expected))
            raise UserError(f"--expect knows no {name!r}; it knows {names}, each as name=value")
        try:
            found[name] = kinds[name](value)
        except ValueError:
            raise UserError(f"--expect {name}={value}: {value!r} is no number; write such as {name}=1") from None
    return Expected(**found)  # type: ignore[arg-type]  # of the kinds above


def of_account(account: Account, meant: Expected) -> Iterator[RuleFinding]:
    """Yield what differs from what was meant."""
    stories = [story for story in account.stories if story.steps]
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
    other = [(w, e, clip) for w, e, clip in clips if clip.threshold not in (None, meant.max_norm)]
    if other:
        window, event, clip = other[0]
        sentence = f"clipped to {clip.threshold:g}, and {meant.max_norm:g} was meant"
        yield RuleFinding(THRESHOLD, RuleVerdict.WRONG, sentence, event.line, step=window.step, times=len(other))
    longer = [w for w in own if not clips and w.end is not None and meant.max_norm and _long(w, meant.max_norm)]
    if longer and longer[0].end is not None:
        norm = size(longer[0].end.before)
        sentence = f"the step read gradients of norm {norm:.4g}, and a clip to {meant.max_norm:g} was meant"
        yield RuleFinding(
            THRESHOLD, RuleVerdict.WRONG, sentence, longer[0].end.line, step=longer[0].step, times=len(longer)
        )


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
    steps = [e for e in story.events if isinstance(e.what, StepMade)]
    rate = max((rate for e in steps if isinstance(e.what, StepMade) for rate in e.what.rates), default=None)
    if meant.learning_rate is not None and rate is not None and abs(rate - meant.learning_rate) > 1e-6 * rate:
        sentence = f"the largest learning rate was {rate:.4g}, and {meant.learning_rate:g} was meant"
        yield RuleFinding(RATE, RuleVerdict.WRONG, sentence, steps[0].line, times=len(steps))
