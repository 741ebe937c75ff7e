"""Rules on a learning rate that reaches no step: set where nothing reads it, zero, or of another optimizer."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from gradparity.auditing.events import Backward, Schedule, StepMade
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, is_empty

UNREAD = Rule(
    "GP833",
    "learning-rate-set-where-nothing-reads-it",
    "The optimizer's step reads the lr of param_groups alone. Another key, an attribute of the optimizer, or its "
    "defaults, which only later groups take, change nothing.",
    "for group in optimizer.param_groups:\n    group['lr'] = rate",
    reported="https://discuss.pytorch.org/t/adaptive-learning-rate/320",
)
ZERO = Rule(
    "GP834",
    "steps-at-rate-zero",
    "The learning rate of all groups is 0 in several steps, so the weights stay. A warm-up that divides integers "
    "gives 0 until its end; a schedule planned for fewer steps gives 0 from its end on.",
    "LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / warmup_steps))",
    right_in="a part that rests by its rate",
)
OF_ANOTHER = Rule(
    "GP835",
    "schedule-of-an-optimizer-that-does-not-step",
    "The scheduler sets the rates of an optimizer that makes no step: it was built for another one, or before the "
    "optimizer was built anew. The optimizer that trains keeps its rate.",
    "optimizer = torch.optim.AdamW(parameters)\nscheduler = CosineAnnealingLR(optimizer, T_max)  # after it",
    right_in="an optimizer whose turn comes later",
)

FEW = 3
"""Steps that are enough to see a habit."""


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find in one optimizer."""
    made = [(w, w.end, w.made) for w in windows if w.end is not None and w.made is not None]
    unread = [(w, end, what) for w, end, what in made if what.unread is not None and what.unread not in what.rates]
    changed, constant = len({what.unread for _, _, what in made}) > 1, len({what.rates for _, _, what in made}) == 1
    if unread and changed and constant:  # else it is a note of the loop
        window, end, what = unread[-1]
        words = (
            f"a rate of {what.unread:.4g} was set beside the lr of param_groups, and the step used {what.rates[0]:.4g}"
        )
        yield RuleFinding(
            UNREAD, RuleVerdict.WRONG, f"{words}, in {times(len(unread))}", end.line, story.made, window.step
        )
    for zero, run in groupby(made, key=lambda one: bool(one[2].rates) and not any(one[2].rates)):
        still = [(w, end) for w, end, what in run if not what.skipped and not is_empty(end.before)]
        if zero and len(still) > 1:
            window, end = still[0]
            words = f"the learning rate was 0 in {times(len(still))} from here on, which had gradients"
            yield RuleFinding(ZERO, RuleVerdict.UNUSUAL, words, end.line, None, window.step, times=len(still))
            return


def of_run(facts: RunFacts) -> Iterator[RuleFinding]:
    """Yield the schedules of optimizers that do not step while another one does, without a schedule."""
    for story in facts.stories:
        last = max((e.number for e in story.events if isinstance(e.what, StepMade)), default=-1)
        late = [e for e in story.events if isinstance(e.what, Schedule) and e.number > last]
        if len(late) < FEW or facts.raised is not None:
            continue
        for other in facts.stories:
            steps = [e for e in other.events if isinstance(e.what, StepMade) and e.number > max(last, late[0].number)]
            if len(steps) >= FEW and not any(isinstance(e.what, Schedule) for e in other.events):
                words = (
                    f"the scheduler of the {story.name} built at {story.made} ran {times(len(late), 'time')} since its "
                    f"last step; the {other.name} built at {other.made} steps, and has no schedule"
                    if last >= 0
                    else f"the scheduler of the {story.name} built at {story.made} ran {times(len(late), 'time')}, and "
                    f"that never steps; the {other.name} built at {other.made} does, and has no schedule"
                )
                certain = not facts.let_go and _holds_the_same(story, other)
                verdict = RuleVerdict.WRONG if certain else RuleVerdict.UNUSUAL
                yield RuleFinding(OF_ANOTHER, verdict, words, late[0].line, other.made, times=len(late))
                break


def _holds_the_same(one: Story, other: Story) -> bool:
    """Return whether two optimizers hold the same parameters: in each backward that reached both, or in turn."""
    first, second = ([(e.line, e.what.weights) for e in s.events if isinstance(e.what, Backward)] for s in (one, other))
    left = {e.what.weights_after for e in one.events if isinstance(e.what, StepMade)}
    begun = next((e.what.weights_before for e in other.events if isinstance(e.what, StepMade)), "")
    return begun in left or (len(second) >= FEW and set(second) <= set(first))
