"""The rules of the audit, one file a theme. Each is a function from facts to findings; none keeps anything."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict
from gradparity.auditing.rules import (
    before_the_step,
    between_backwards,
    clip_after_step,
    clip_before_unscale,
    clipping,
    data_of_ranks,
    errors_of_torch,
    exchange_between_ranks,
    extra_schedules,
    gradients_by_hand,
    gradients_of_inputs,
    learning_rates,
    loss_divisors,
    loss_in_half,
    loss_inputs,
    loss_scale,
    norm_and_dropout_layers,
    optimizers,
    padding,
    parameters,
    scaler_handling,
    schedules,
    several_backwards,
    some_left_over,
    stepping,
    token_weights,
    train_and_eval,
    unlike_expected,
    unlike_planned,
    unused_parameters,
    weight_averages,
    window_lengths,
    zero_grad,
)
from gradparity.auditing.rules.expected import Expected
from gradparity.auditing.step_windows import windows

_OF_SIGNS = (
    window_lengths,
    unused_parameters,
    before_the_step,
    loss_divisors,
    norm_and_dropout_layers,
    extra_schedules,
    some_left_over,
    learning_rates,
    padding,
    clip_after_step,
    loss_in_half,
)

_FILES = (
    unlike_expected,
    zero_grad,
    several_backwards,
    between_backwards,
    clip_before_unscale,
    loss_scale,
    scaler_handling,
    clipping,
    token_weights,
    loss_inputs,
    parameters,
    optimizers,
    train_and_eval,
    gradients_by_hand,
    stepping,
    schedules,
    exchange_between_ranks,
    data_of_ranks,
    errors_of_torch,
    unlike_planned,
    *_OF_SIGNS,
    weight_averages,
    gradients_of_inputs,
)

_IMPLIED = {
    optimizers.NEVER_STEPS.code: (exchange_between_ranks.NEVER_STEPS.code,),
    unused_parameters.UNUSED_MOVED.code: (parameters.STILL_MOVES.code,),
    unused_parameters.ALWAYS_ZERO.code: (loss_inputs.ONE_CLASS.code,),
    parameters.IN_NO_OPTIMIZER.code: (optimizers.OF_ANOTHER_MODEL.code, optimizers.SAME_MODEL.code),
    stepping.NEVER_REACHED.code: (parameters.MADE_LATER.code,),
    several_backwards.OTHERS_GRADIENT.code: (between_backwards.LEAKS.code, zero_grad.LEFT_OVER.code),
    gradients_by_hand.DROPPED.code: (zero_grad.THROWN_AWAY.code,),
    between_backwards.LEAKS.code: (zero_grad.LEFT_OVER.code,),
}
"""Rules that say nothing new where one of these others has found its cause."""

_ALL = dict.fromkeys(rule for file in _FILES for rule in vars(file).values() if isinstance(rule, Rule))

RULES: dict[str, Rule] = {rule.code: rule for rule in sorted(_ALL, key=lambda rule: rule.code)}
"""All rules by their code, in order."""


def judge(
    facts: RunFacts,
    ignored: Iterable[str] = (),
    meant: Expected | None = None,
    others: Sequence[RunFacts] = (),
) -> list[RuleFinding]:
    """Return everything that the rules find in the facts, the wrong first, each in the order of the codes.

    Args:
        facts: the facts of a run.
        ignored: codes of rules that are not asked, or beginnings of codes: ``GP4`` stands for all of its theme.
        meant: what the user has said of the loop.
        others: the facts of the other exchange_between_ranks, in order.
    """
    found = _of_one(facts, meant or Expected())
    together = [one for one in (facts, *others) if one.world > 1]
    if len(together) > 1:
        of_all = [*exchange_between_ranks.of_ranks(together), *data_of_ranks.of_ranks(together)]
        found += {(f.rule, f.line): f for f in reversed(of_all)}.values()
    for number, other in enumerate(others, 1):
        known = {(f.rule, f.line) for f in found}
        new = [f for f in _of_one(other, meant or Expected()) if (f.rule, f.line) not in known]
        where = f"on rank {number}" if other.world > 1 else f"in process {number}"
        found += [replace(f, sentence=f"{f.sentence}, {where}") for f in new]
    beginnings = tuple(ignored)
    kept = [f for f in found if not (beginnings and f.rule.code.startswith(beginnings)) and not _silenced(f)]
    kept = [f for f in kept if not any(other.rule.code in _IMPLIED.get(f.rule.code, ()) for other in kept)]
    once = {(f.rule.code, f.verdict, f.line, f.other): f for f in reversed(kept)}  # one optimizer for each parameter
    return sorted(once.values(), key=lambda f: (list(RuleVerdict).index(f.verdict), f.rule.code))


def _of_one(facts: RunFacts, meant: Expected) -> list[RuleFinding]:
    """Return what the rules find in the facts of one process."""
    found: list[RuleFinding] = []
    by_number = {story.number: windows(story) for story in facts.stories}
    for story in facts.stories:
        own = by_number[story.number]
        for file in (
            zero_grad,
            several_backwards,
            between_backwards,
            clip_before_unscale,
            loss_scale,
            clipping,
            token_weights,
            loss_inputs,
            parameters,
            train_and_eval,
            gradients_by_hand,
            schedules,
            *_OF_SIGNS,
        ):
            found += file.of_story(story, own)
        found += stepping.of_story(story, own, facts)
        found += scaler_handling.of_story(story, own, facts)
    if facts.let_go or facts.raised is not None:  # the loop went on, or never came to its end
        found = [f for f in found if f.rule is not zero_grad.NEVER_STEPPED]
    found += several_backwards.of_several(facts.stories, by_number)
    found += between_backwards.of_several(facts.stories, by_number)
    found += parameters.of_run(facts)
    found += optimizers.of_run(facts, by_number)
    found += gradients_of_inputs.of_run(facts, by_number)
    found += train_and_eval.of_run(facts)
    found += schedules.of_run(facts)
    found += learning_rates.of_run(facts)
    found += data_of_ranks.of_run(facts)
    found += errors_of_torch.of_run(facts)
    found += loss_divisors.of_run(facts)
    found += weight_averages.of_run(facts)
    found += unlike_expected.of_run(facts, meant)
    found += unlike_planned.of_run(facts, meant)
    return found


def _silenced(finding: RuleFinding) -> bool:
    """Return whether the user's line says ``# gradparity: ignore GP101``."""
    _, mark, codes = finding.line.source.partition("# gradparity: ignore")
    return bool(mark) and (not codes.strip() or finding.rule.code in codes)
