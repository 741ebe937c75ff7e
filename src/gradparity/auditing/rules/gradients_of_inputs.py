"""A rule on penalties of gradients, whose gradient needs a graph."""

from collections.abc import Iterator, Mapping, Sequence

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow

WITHOUT_GRAPH = Rule(
    "GP708",
    "gradient-of-an-input-without-a-graph",
    "autograd.grad returned the gradient of an input without a graph of its own, so the loss can only read it as a "
    "constant: a gradient penalty made of it trains nothing.",
    "(slope,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)\npenalty = (slope.norm(dim=1) - 1).square()",
    right_in="sampling by the gradient of an energy; saliency maps; a slope that is only logged",
    reported="https://docs.pytorch.org/docs/stable/notes/amp_examples.html#gradient-penalty",
)

FEW = 3
"""Steps that are enough to see a habit."""


def of_run(facts: RunFacts, by_number: Mapping[int, Sequence[StepWindow]]) -> Iterator[RuleFinding]:
    """Yield what this rule finds: one such gradient in each step. Sampling takes several for each."""
    for story in facts.stories:
        own = [one for one in facts.input_gradients if story.number in one.optimizers]
        ends = [w.end.number for w in by_number[story.number] if w.end is not None]
        steps = [sum(end <= one.after for end in ends) for one in own]
        trained = {w.step for w in by_number[story.number] if w.made is not None and w.backwards}
        lines = {one.line for one in own}
        if len(lines) == 1 and len(own) >= FEW and len(set(steps)) == len(steps) and set(steps) <= trained:
            words = f"the gradient of an input was taken without create_graph, once in {times(len(own))}"
            yield RuleFinding(WITHOUT_GRAPH, RuleVerdict.UNUSUAL, words, own[0].line, None, steps[0], times=len(own))
            return
