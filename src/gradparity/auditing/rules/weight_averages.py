"""Rules on averages of the weights: they follow once a step that was made."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.watching.graph_facts import AverageMove

INSIDE = Rule(
    "GP821",
    "average-follows-without-a-step",
    "The average of the weights moved though no step was made since it moved before: it follows every microbatch, and "
    "forgets faster than its decay says. A loss that uses it sees another teacher in each microbatch.",
    "if (i + 1) % k == 0:\n    optimizer.step()\n    average.update_parameters(model)",
    right_in="a decay that was chosen for microbatches",
    reported="https://github.com/lightly-ai/lightly-train/issues/968",
)
ON_SKIPPED = Rule(
    "GP822",
    "average-follows-a-skipped-step",
    "The scaler skipped the step for an overflow, and the average of the weights moved all the same.",
    "scale = scaler.get_scale()\nscaler.step(optimizer)\nscaler.update()\nif scaler.get_scale() >= scale:\n"
    "    average.update_parameters(model)",
    right_in="long trainings, in which a few steps do not matter",
)


def of_run(facts: RunFacts) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    still = [move for move in facts.averages if not move.made and move.backwards]
    skipped = [move for move in still if move.skipped]
    inside = [move for move in still if not move.skipped]
    if len({move.step for move in inside}) > 1:
        yield _of(INSIDE, inside, "moved, and no step was made since it moved before")
    elif len(skipped) > 1:
        yield _of(ON_SKIPPED, skipped, "moved, and the only step since it moved before was skipped")


def _of(rule: Rule, moves: Sequence[AverageMove], words: str) -> RuleFinding:
    first = moves[0]
    sentence = f"{first.name} {words}, {times(len(moves), 'time')}"
    return RuleFinding(rule, RuleVerdict.UNUSUAL, sentence, first.line, None, first.step, times=len(moves))
