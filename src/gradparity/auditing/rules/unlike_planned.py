"""Rules on the plan of a training, where the user says it: its schedule and its number of steps."""

import math
from collections.abc import Iterator, Sequence

from gradparity.auditing.events import LoopEvent, Schedule, StepMade
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.rules.expected import Expected

SCHEDULE = Rule(
    "GP010",
    "other-schedule",
    "The learning rate of a step is not that of the schedule which was meant, one step earlier or later included.",
    "schedule = get_cosine_schedule(optimizer, warmup_steps, total_steps)\n"
    "# after each step that was made:\nschedule.step()",
)
STEPS = Rule(
    "GP011",
    "other-number-of-steps",
    "The training ended after a different number of optimizer steps than was meant.",
    "total_steps = epochs * math.ceil(len(batches) / accumulation_steps)",
)


def of_run(facts: RunFacts, meant: Expected) -> Iterator[RuleFinding]:
    """Yield what differs from what was planned."""
    ended = not facts.let_go and facts.raised is None
    for story in facts.stories:
        steps = [(e, e.what) for e in story.events if isinstance(e.what, StepMade)]
        if not steps or meant.optimizer_class not in (None, story.name):
            continue
        yield from _schedule(story, steps, meant)
        if ended and meant.total_steps is not None and len(steps) != meant.total_steps:
            sentence = f"the training ended after {times(len(steps))}, and {meant.total_steps} were meant"
            yield RuleFinding(STEPS, RuleVerdict.WRONG, sentence, steps[-1][0].line, step=len(steps) - 1)


def _schedule(story: Story, steps: Sequence[tuple[LoopEvent, StepMade]], meant: Expected) -> Iterator[RuleFinding]:
    """Compare the largest rate of each step that was made with the plan, one step earlier and later."""
    rates = [(event, max(what.rates)) for event, what in steps if what.rates and _moved(what)]
    if not rates or (meant.schedule is None and meant.warmup_steps is None) or _resumed(story):
        return
    peak = meant.learning_rate or max(rate for _, rate in rates)
    found = []
    for number, (event, rate) in enumerate(rates):
        planned = [_planned(number + shift, peak, meant) for shift in (-1, -0.5, 0, 0.5, 1)]
        known = [each for each in planned if each is not None]
        if len(known) == len(planned) and not min(known) - 1e-6 * peak <= rate <= max(known) + 1e-6 * peak:
            found.append((event, number, rate, min(known), max(known)))
    if found:
        event, number, rate, least, most = found[0]
        between = f"{least:.4g}" if most - least <= 1e-6 * most else f"{least:.4g} to {most:.4g}"
        sentence = f"the learning rate was {rate:.4g} after {times(number)}, and {between} was meant"
        yield RuleFinding(SCHEDULE, RuleVerdict.WRONG, sentence, event.line, step=number, times=len(found))


def _resumed(story: Story) -> bool:
    """Return whether the schedule had run before the first watched step: its count is ahead of the steps."""
    made = 0
    for event in story.events:
        made += isinstance(event.what, StepMade) and _moved(event.what)
        if isinstance(event.what, Schedule):
            return event.what.count > made + 1
    return False


def _moved(step: StepMade) -> bool:
    """Return whether the step was made; fused optimizers skip an overflow by themselves, inside their step."""
    return not step.skipped and step.weights_before != step.weights_after


def _planned(step: float, peak: float, meant: Expected) -> float | None:
    """Return the planned rate after some steps; ``None`` if the words do not say it."""
    warmup, total = meant.warmup_steps or 0, meant.total_steps
    if step < warmup:
        return peak * max(0.0, step) / warmup
    if meant.schedule == "constant":
        return peak
    if total is None or meant.schedule is None:
        return peak if step == warmup else None
    final = meant.final_learning_rate or 0.0
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    left = 0.5 * (1 + math.cos(math.pi * done)) if meant.schedule == "cosine" else 1 - done
    return final + (peak - final) * left
