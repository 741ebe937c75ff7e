"""Rules on parameters that no optimizer holds."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.events import Account, Outsider
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times

MADE_LATER = Rule(
    "GP501",
    "parameter-made-after-its-optimizer",
    "The parameter was put into the model after the optimizer had been built from it. It gets gradients and is never "
    "trained.",
    "model = add_adapters(model)\noptimizer = torch.optim.AdamW(model.parameters())\n# or\n"
    "optimizer.add_param_group({'params': new_parameters})",
    reported="https://github.com/adapter-hub/adapters/issues/260",
)
IN_NO_OPTIMIZER = Rule(
    "GP502",
    "parameter-in-no-optimizer",
    "The parameter gets gradients in every backward, and no optimizer holds it. They are computed for nothing, or the "
    "parameter should be trained.",
    "optimizer = torch.optim.AdamW([*encoder.parameters(), *classifier.parameters()])\n# or, if it stays as it is\n"
    "classifier.requires_grad_(False)",
    right_in="fine-tuning of the last layers; style transfer and other training of inputs through a fixed network",
    reported="https://github.com/huggingface/sentence-transformers/issues/2872",
)


def of_account(account: Account) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    if not any(story.steps for story in account.stories):
        return
    late = [p for p in account.outsiders if p.late and p.beside and p.times > 1]
    if late:
        words = f"came into the model after the optimizer of {late[0].beside} was built; no optimizer holds"
        yield _finding(MADE_LATER, RuleVerdict.WRONG, late, words)
    rest = [p for p in account.outsiders if p not in late and p.times > 1]
    if rest:
        yield _finding(IN_NO_OPTIMIZER, RuleVerdict.UNUSUAL, rest, "and no optimizer holds")


def _finding(rule: Rule, verdict: RuleVerdict, found: Sequence[Outsider], words: str) -> RuleFinding:
    names = ", ".join(p.name for p in found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    them = "it" if len(found) == 1 else "them"
    if rule is MADE_LATER:
        sentence = f"{names} {words} {them}, and {times(found[0].times, 'backward')} computed gradients for {them}"
    else:
        sentence = f"{names} got gradients in {times(found[0].times, 'backward')}, {words} {them}"
    return RuleFinding(rule, verdict, sentence, found[0].line, times=found[0].times)
