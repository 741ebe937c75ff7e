"""Rules on the learning rate and its schedule."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from gradparity.auditing.events import LoopEvent, Schedule, StepMade
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow

BEFORE_STEP = Rule(
    "GP811",
    "schedule-before-the-step",
    "The scheduler runs between backward and step, or before the first step. So the first learning rate of the "
    "schedule is never used.",
    "optimizer.step()\nscheduler.step()",
    reported="https://docs.pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate",
)
EVERY_MICROBATCH = Rule(
    "GP812",
    "schedule-every-microbatch",
    "The scheduler runs once a microbatch, so it is over before the training is, by the number of microbatches a step.",
    "if (i + 1) % k == 0:\n    optimizer.step()\n    scheduler.step()",
    right_in="a schedule that was planned in microbatches",
)
SEVERAL_TIMES = Rule(
    "GP813",
    "schedule-several-times-a-step",
    "The scheduler runs more than once for each optimizer step.",
    "optimizer.step()\nscheduler.step()",
    right_in="two schedulers that are meant to multiply; a schedule in samples or epochs",
)
ON_SKIPPED = Rule(
    "GP814",
    "schedule-advanced-on-a-skipped-step",
    "The scaler skipped the step for an overflow, and the scheduler advanced all the same. The warm-up loses its first "
    "steps.",
    "scale = scaler.get_scale()\nscaler.step(optimizer)\nscaler.update()\nif scaler.get_scale() >= scale:\n"
    "    scheduler.step()",
    right_in="long schedules, for which a few steps do not matter",
)
BACKWARDS = Rule(
    "GP815",
    "schedule-starts-again",
    "The scheduler's own count fell: it was made anew, or not restored with the optimizer.",
    "scheduler = make_scheduler(optimizer)  # once\nscheduler.load_state_dict(checkpoint['scheduler'])",
    right_in="warm restarts; several stages of training",
)
RATE_WRITTEN = Rule(
    "GP816",
    "learning-rate-set-beside-its-schedule",
    "A scheduler sets the learning rate, and something else has changed it since. Most schedulers compute the next "
    "rate from the present one, and stay off their plan.",
    "scheduler = SequentialLR(optimizer, [warmup, cosine], milestones=[warmup_steps])",
    right_in="a warm-up by hand before the schedule begins",
)
NEVER_STEPPED = Rule(
    "GP817",
    "scheduler-never-stepped",
    "A scheduler was built and never ran, so the learning rate stays where it began.",
    "optimizer.step()\nscheduler.step()",
    right_in="a schedule by epoch, if no epoch ended",
)

FEW = 8
"""Steps in which a schedule that is made for each step runs more than once."""

TOO_SELDOM = Rule(
    "GP831",
    "one-cycle-not-after-each-step",
    "OneCycleLR and CyclicLR are planned in optimizer steps and run once for several of them. The rate stays near its "
    "small start, and the cycle does not end.",
    "for batch in loader:\n    ...\n    optimizer.step()\n    scheduler.step()",
    right_in="a cycle whose total_steps counts epochs",
    reported="https://github.com/galilai-group/stable-worldmodel/issues/280",
)
PAST_ITS_END = Rule(
    "GP832",
    "cosine-past-its-end",
    "The cosine has reached its smallest rate and rises again: it runs more often than T_max says.",
    "scheduler = CosineAnnealingLR(optimizer, T_max=epochs * len(loader))  # as often as scheduler.step() runs",
    right_in="cosine cycles that are meant",
)


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    made = [window for window in windows if window.made is not None]
    yield from _place(made)
    yield from _number(windows)
    yield from _cycle(story, made)
    yield from _skipped(windows)
    yield from _count(story)
    yield from _rate(story)


def _schedules(window: StepWindow) -> list[tuple[LoopEvent, Schedule]]:
    return [(e, e.what) for e in window.events if isinstance(e.what, Schedule)]


def _place(made: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = []
    for window in made:
        backwards = [e.number for e, _ in window.backwards]
        late = [e for e, _ in _schedules(window) if backwards and e.number > backwards[-1]]
        if len(late) == 1 == len(_schedules(window)):
            found.append((window, late[0]))
    if len(found) > 1 and len(found) >= len(made) - 1:
        window, event = found[0]
        assert window.end is not None
        words = f"the scheduler runs after the backward and before the step, in {times(len(found))} of {len(made)}"
        yield RuleFinding(
            BEFORE_STEP, RuleVerdict.UNUSUAL, words, event.line, window.end.line, window.step, times=len(found)
        )
    elif made and made[0].end is not None and (early := _begins(made)) is not None:
        words = "the scheduler ran before the first step and lowered its rate"
        yield RuleFinding(BEFORE_STEP, RuleVerdict.UNUSUAL, words, early.line, made[0].end.line, made[0].step)


def _begins(made: Sequence[StepWindow]) -> LoopEvent | None:
    """Return a first step of a schedule before the first optimizer step, if the rate falls, as no warm-up does."""
    found = _schedules(made[0])
    first = made[0].backwards[0][0].number if made[0].backwards else 0
    if len(found) != 1 or found[0][1].count != 1 or found[0][0].number > first:
        return None
    event, what = found[0]
    later = [rate for w in made for _, other in _schedules(w) for rate in other.rates]
    falls = what.lowered and max(later, default=0.0) <= max(what.rates, default=0.0)
    return event if falls else None


def _number(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    counts = [(w, _schedules(w), len(w.backwards)) for w in windows[1:] if w.made is not None]
    every = [(w, s) for w, s, number in counts if number > 1 and len(s) == number and len({e.line for e, _ in s}) == 1]
    if len(every) > 1 and len(every) >= len(counts) - 2:
        window, schedules = every[0]
        words = f"the scheduler runs {len(schedules)} times a step, once for each microbatch"
        yield RuleFinding(EVERY_MICROBATCH, RuleVerdict.UNUSUAL, words, schedules[0][0].line, None, window.step)
        return
    several = [(w, s) for w, s, _ in counts if len(s) > 1 and len({what.name for _, what in s}) == 1]
    if len(several) > 1 and len(several) >= len(counts) - 2:
        window, schedules = several[0]
        words = f"{schedules[0][1].name} runs {len(schedules)} times for one step"
        yield RuleFinding(SEVERAL_TIMES, RuleVerdict.UNUSUAL, words, schedules[0][0].line, None, window.step)


def _cycle(story: Story, made: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    schedules = [(e, e.what) for e in story.events if isinstance(e.what, Schedule)]
    each = [(e, what) for e, what in schedules if what.each_step]
    if (len(each) > 1 or (each and len(made) > FEW)) and len(each) * 2 <= len(made) - 1:
        event, what = each[0]
        words = f"{what.name} ran {times(len(each), 'time')} in {times(len(made))}"
        yield RuleFinding(TOO_SELDOM, RuleVerdict.UNUSUAL, words, event.line)
    past = [(e, what) for e, what in schedules if what.past_end]
    if past:
        event, what = past[0]
        words = f"{what.name} passed its T_max with its step {what.count}, and the rate rises from here on"
        yield RuleFinding(PAST_ITS_END, RuleVerdict.UNUSUAL, words, event.line, times=len(past))


def _skipped(windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    found = []
    for before, window in itertools.pairwise(windows):
        first = window.backwards[0][0].number if window.backwards else window.events[-1].number + 1
        early = [e for e, _ in _schedules(window) if e.number < first]
        if before.made is not None and before.made.skipped and early:
            found.append((before, early[0]))
    if found:
        window, event = found[0]
        assert window.end is not None
        words = f"the scaler skipped the step, and the scheduler advanced, {times(len(found), 'time')}"
        yield RuleFinding(
            ON_SKIPPED, RuleVerdict.UNUSUAL, words, event.line, window.end.line, window.step, times=len(found)
        )


def _count(story: Story) -> Iterator[RuleFinding]:
    last: dict[str, int] = {}
    for event in story.events:
        if isinstance(event.what, Schedule):
            name, count = event.what.name, event.what.count
            if count <= last.get(name, -1) and last.get(name, 0) > 1:
                words = f"{name} had counted {last[name]} steps, and now counts {count}"
                yield RuleFinding(BACKWARDS, RuleVerdict.UNUSUAL, words, event.line)
                return
            last[name] = count


def _rate(story: Story) -> Iterator[RuleFinding]:
    """Find a learning rate at a step that is not the one which the schedule set."""
    rates: tuple[float, ...] | None = None
    found = []
    for event in story.events:
        if isinstance(event.what, Schedule):
            rates = event.what.rates
        elif rates is not None and isinstance(event.what, StepMade):
            changed = [pair for pair in zip(rates, event.what.rates, strict=False) if pair[0] != pair[1]]
            found += [(event, *changed[0])] if changed else []  # a group may have come since, with its own rate
    if found:
        event, planned, used = found[0]
        words = f"the schedule set the learning rate to {planned:.4g}, and the step used {used:.4g}"
        yield RuleFinding(RATE_WRITTEN, RuleVerdict.UNUSUAL, words, event.line, times=len(found))


def of_run(facts: RunFacts) -> Iterator[RuleFinding]:
    """Yield the schedulers that were built in a loop, or never ran in a training that came to its end."""
    for story in facts.stories:
        yield from _made_again(story, facts)
        built = [(name, line) for number, name, line in facts.schedulers if number == story.number]
        ran = any(isinstance(event.what, Schedule) for event in story.events)
        rates = {event.what.rates for event in story.events if isinstance(event.what, StepMade)}
        moved = len(rates) > 1  # as by Ignite, which asks a scheduler for its rates without a call of its step
        if built and not ran and not moved and story.steps > 1 and not facts.let_go:
            name, line = built[-1]
            words = f"{name} was built and did not run in {times(story.steps)}"
            yield RuleFinding(NEVER_STEPPED, RuleVerdict.UNUSUAL, words, line)


def _made_again(story: Story, facts: RunFacts) -> Iterator[RuleFinding]:
    """Find schedulers of one optimizer that one line builds again and again, and that run in turn."""
    ran: dict[str, list[int]] = {}
    longest = max((e.what.count for e in story.events if isinstance(e.what, Schedule)), default=0)
    for event in story.events:
        if isinstance(event.what, Schedule) and longest <= 1:  # the count of a longer one is seen to fall
            ran.setdefault(event.what.name, []).append(event.what.scheduler)
    for (number, name, line), built in Counter(facts.schedulers).items():
        in_turn = [key for key, _ in itertools.groupby(ran.get(name, ()))]
        if number == story.number and built > 2 and len(in_turn) == len(set(in_turn)) > 1:
            words = f"{name} was made {times(built, 'time')} at this line, and each begins at the rate it finds"
            yield RuleFinding(BACKWARDS, RuleVerdict.UNUSUAL, words, line, times=built)
