"""The rules of the audit, one file a theme. Each is a function from facts to findings; none keeps anything."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gradparity.auditing.account import Account
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict
from gradparity.auditing.rules import (
    as_meant,
    as_planned,
    averages,
    before_the_step,
    between_backwards,
    clipping,
    divisors,
    extra_schedules,
    layers,
    loss_inputs,
    modes,
    normalization,
    optimizers,
    parameters,
    raised,
    ranks,
    ranks_data,
    scalers,
    scaling,
    schedules,
    several_backwards,
    stepping,
    unused_parameters,
    window_lengths,
    wiring,
    zero_grad,
)
from gradparity.auditing.rules.expected import Expected
from gradparity.auditing.windows import windows

_OF_SIGNS = (window_lengths, unused_parameters, before_the_step, divisors, layers, extra_schedules)

_FILES = (
    as_meant,
    zero_grad,
    several_backwards,
    between_backwards,
    scaling,
    scalers,
    clipping,
    normalization,
    loss_inputs,
    parameters,
    optimizers,
    modes,
    wiring,
    stepping,
    schedules,
    ranks,
    ranks_data,
    raised,
    as_planned,
    *_OF_SIGNS,
    averages,
)

_IMPLIED = {
    unused_parameters.UNUSED_MOVED.code: (parameters.STILL_MOVES.code,),
    parameters.IN_NO_OPTIMIZER.code: (optimizers.OF_ANOTHER_MODEL.code, optimizers.SAME_MODEL.code),
    stepping.NEVER_REACHED.code: (parameters.MADE_LATER.code,),
    several_backwards.OTHERS_GRADIENT.code: (between_backwards.LEAKS.code, zero_grad.LEFT_OVER.code),
    between_backwards.LEAKS.code: (zero_grad.LEFT_OVER.code,),
}
"""Rules that say nothing new where one of these others has found its cause."""

_ALL = dict.fromkeys(rule for file in _FILES for rule in vars(file).values() if isinstance(rule, Rule))

RULES: dict[str, Rule] = {rule.code: rule for rule in sorted(_ALL, key=lambda rule: rule.code)}
"""All rules by their code, in order."""


def judge(
    account: Account,
    ignored: Iterable[str] = (),
    meant: Expected | None = None,
    others: Sequence[Account] = (),
) -> list[RuleFinding]:
    """Return everything that the rules find in the facts, the wrong first, each in the order of the codes.

    Args:
        account: the facts of a run.
        ignored: codes of rules that are not asked, or beginnings of codes: ``GP4`` stands for all of its theme.
        meant: what the user has said of the loop.
        others: the facts of the other ranks, in order.
    """
    found = _of_one(account, meant or Expected())
    together = [one for one in (account, *others) if one.world > 1]
    if len(together) > 1:
        of_all = [*ranks.of_ranks(together), *ranks_data.of_ranks(together)]
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


def _of_one(account: Account, meant: Expected) -> list[RuleFinding]:
    """Return what the rules find in the facts of one process."""
    found: list[RuleFinding] = []
    by_number = {story.number: windows(story) for story in account.stories}
    for story in account.stories:
        own = by_number[story.number]
        for file in (
            zero_grad,
            several_backwards,
            between_backwards,
            scaling,
            clipping,
            normalization,
            loss_inputs,
            parameters,
            modes,
            wiring,
            schedules,
            *_OF_SIGNS,
        ):
            found += file.of_story(story, own)
        found += stepping.of_story(story, own, account)
        found += scalers.of_story(story, own, account)
    if account.let_go or account.raised is not None:  # the loop went on, or never came to its end
        found = [f for f in found if f.rule is not zero_grad.NEVER_STEPPED]
    found += several_backwards.of_several(account.stories, by_number)
    found += between_backwards.of_several(account.stories, by_number)
    found += parameters.of_account(account)
    found += optimizers.of_account(account, by_number)
    found += modes.of_account(account)
    found += schedules.of_account(account)
    found += ranks_data.of_account(account)
    found += raised.of_account(account)
    found += divisors.of_account(account)
    found += averages.of_account(account)
    found += as_meant.of_account(account, meant)
    found += as_planned.of_account(account, meant)
    return found


def _silenced(finding: RuleFinding) -> bool:
    """Return whether the user's line says ``# gradparity: ignore GP101``."""
    _, mark, codes = finding.line.source.partition("# gradparity: ignore")
    return bool(mark) and (not codes.strip() or finding.rule.code in codes)
