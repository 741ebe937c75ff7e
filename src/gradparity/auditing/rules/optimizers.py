"""Rules on optimizers as a whole: one that never steps, is made again, or holds the parameters of another model."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from gradparity.auditing.events import Schedule, StepMade, ZeroGrad
from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow, is_empty
from gradparity.auditing.watching.parameters_without_optimizer import Origin

NEVER_STEPS = Rule(
    "GP841",
    "optimizer-never-steps",
    "Gradients are computed and emptied again, and the optimizer makes no step. Its weights stay what they are.",
    "loss.backward()\noptimizer.step()\noptimizer.zero_grad()",
    right_in="an optimizer whose turn comes later; a pass that only collects gradients",
)
MADE_AGAIN = Rule(
    "GP842",
    "optimizer-made-again",
    "A new optimizer goes on from the weights of the one before and has none of its moments. Adam's first steps are "
    "then large, and momentum begins anew.",
    "optimizer = torch.optim.AdamW(model.parameters())  # once, before the epochs\n"
    "optimizer.load_state_dict(checkpoint['optimizer'])  # after a resume",
    right_in="restarts that forget the moments on purpose; stages of training",
    reported="https://github.com/alan-turing-institute/deepsensor/issues/47",
)
OF_ANOTHER_MODEL = Rule(
    "GP843",
    "optimizer-without-gradients",
    "The optimizer steps and its parameters get no gradient, because the model that is trained is another one: it was "
    "replaced, copied or initialized anew after the optimizer had been built.",
    "model = build_or_load_model()\noptimizer = torch.optim.AdamW(model.parameters())  # last",
    right_in="an optimizer of a part that is not used for some steps, or that only carries a schedule",
    reported="https://docs.pytorch.org/docs/stable/optim.html#constructing-it",
)
SAME_MODEL = Rule(
    "GP844",
    "two-optimizers-of-one-model",
    "Two optimizers hold the parameters of one model, and another model, which gets gradients, is in none.",
    "optimizer_g = torch.optim.Adam(generator.parameters())\n"
    "optimizer_d = torch.optim.Adam(discriminator.parameters())",
)
FEW = 3
"""Steps or backwards that are enough to see a habit."""


def of_run(facts: RunFacts, by_number: Mapping[int, Sequence[StepWindow]]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    for story in facts.stories:
        yield from _never_steps(story, by_number[story.number], facts)
        yield from _without_gradients(story, by_number[story.number], facts)
    yield from _made_again(facts.stories)
    yield from _same_model(facts)


def _never_steps(story: Story, windows: Sequence[StepWindow], facts: RunFacts) -> Iterator[RuleFinding]:
    if story.steps or facts.raised is not None:
        return
    backwards = [(e, what) for w in windows for e, what in w.backwards if what.into_grad and not is_empty(e.after)]
    emptied = [e.what.by_optimizer for e in story.events if isinstance(e.what, ZeroGrad)]
    enough = 3 * FEW if facts.let_go else FEW
    if len(backwards) < enough or len(emptied) < FEW or len({what.weights for _, what in backwards}) > 1:
        return
    event = backwards[-1][0]
    words = f"{times(len(backwards), 'backward')} reached the parameters of {story.name}, which never made a step"
    meant = sum(emptied) >= FEW and not facts.let_go  # its own zero_grad runs, and the training has ended
    verdict = RuleVerdict.WRONG if meant else RuleVerdict.UNUSUAL
    yield RuleFinding(NEVER_STEPS, verdict, words, story.made, event.line, times=len(backwards))


def _without_gradients(story: Story, windows: Sequence[StepWindow], facts: RunFacts) -> Iterator[RuleFinding]:
    made = [w for w in windows if w.made is not None and w.end is not None and not w.made.skipped]
    last = list(itertools.takewhile(lambda w: w.end and is_empty(w.end.before) and not w.backwards, reversed(made)))
    if len(last) < FEW or any(w.made and w.made.closure for w in last):
        return
    strangers = [p for p in facts.outsiders if not p.beside and p.origin is not Origin.ALONE and p.times >= FEW]
    window = last[-1]
    assert window.end is not None
    words = f"the parameters of {story.name} had no gradient in {times(len(last))}, from step {window.step} to the last"
    if strangers:
        words += f"; {strangers[0].name}, which no optimizer holds, got gradients in {strangers[0].times} backwards"
    alike = (Counter(p.shape for p in strangers) & Counter(story.shapes)).total()
    idle = len(last) == story.steps and not facts.let_go and facts.raised is None and _is_still(story)
    verdict = RuleVerdict.WRONG if 2 * alike > len(story.shapes) or idle else RuleVerdict.UNUSUAL
    yield RuleFinding(OF_ANOTHER_MODEL, verdict, words, window.end.line, story.made, window.step, times=len(last))


def _is_still(story: Story) -> bool:
    """Return whether nothing but the optimizer, which has no gradient, was to move these weights; no schedule asks it.

    Loops that write the weights themselves may step an idle optimizer for the sake of its schedule.
    """
    made = [e.what for e in story.events if isinstance(e.what, StepMade)]
    scheduled = any(isinstance(e.what, Schedule) for e in story.events)
    weights = {w for step in made for w in (step.weights_before, step.weights_after)}
    return not scheduled and any(story.trained) and len(weights) == 1


def _made_again(stories: Sequence[Story]) -> Iterator[RuleFinding]:
    steps = {s.number: [e.what for e in s.events if isinstance(e.what, StepMade)] for s in stories if s.steps}
    found = []
    in_turn = sorted((s for s in stories if s.steps), key=lambda story: story.number)
    for before, after in itertools.pairwise(in_turn):
        last, first = steps[before.number][-1], steps[after.number][0]
        same = (before.name, before.made) == (after.name, after.made)
        if same and last.weights_after == first.weights_before and last.state_after != first.state_before:
            found.append((before, after))
    if found:
        before, after = found[0]
        words = (
            f"a new {after.name} was made at this line, {times(len(found), 'time')}; it goes on from the weights that "
            f"the one before had left after {times(before.steps)}, without its moments"
        )
        yield RuleFinding(MADE_AGAIN, RuleVerdict.UNUSUAL, words, after.made, times=len(found))


def _same_model(facts: RunFacts) -> Iterator[RuleFinding]:
    strangers = [p for p in facts.outsiders if not p.beside and p.origin is not Origin.ALONE and p.times >= FEW]
    if not strangers:
        return
    steps = sorted(
        ((e.number, s, e.what) for s in facts.stories for e in s.events if isinstance(e.what, StepMade)),
        key=lambda step: step[0],
    )
    shared = [
        (one, other)
        for (_, one, a), (_, other, b) in itertools.pairwise(steps)
        if one is not other and a.weights_after == b.weights_before and a.weights_before != a.weights_after
    ]
    if len(shared) >= FEW:
        one, other = sorted(shared[0], key=lambda story: story.number)
        words = (
            f"{other.name} holds the same parameters as the optimizer built at {one.made}, and {strangers[0].name} of "
            f"another model, which got gradients in {strangers[0].times} backwards, is in none"
        )
        yield RuleFinding(SAME_MODEL, RuleVerdict.WRONG, words, other.made, one.made, times=len(shared))
