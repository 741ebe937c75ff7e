"""Rules on parameters that no optimizer holds."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.facts import RunFacts, Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow
from gradparity.auditing.watching.parameters_without_optimizer import Origin, Outsider

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


THAWED = Rule(
    "GP503",
    "unfrozen-and-in-no-optimizer",
    "The parameter was frozen when the optimizer of its model was built from those that require gradients. It was "
    "unfrozen since, and the optimizer does not know it.",
    "for p in backbone.parameters():\n    p.requires_grad = True\n"
    "optimizer.add_param_group({'params': backbone.parameters(), 'lr': small_rate})",
)
IN_LIST = Rule(
    "GP504",
    "layers-in-a-plain-list",
    "The layers stand in a plain list or dict of their module. Its parameters() does not list them, so no optimizer "
    "trains them, and neither .to(device) nor state_dict() reaches them.",
    "self.layers = nn.ModuleList(layers)  # or nn.ModuleDict",
    reported="https://github.com/pytorch/pytorch/issues/38639",
)
STILL_MOVES = Rule(
    "GP506",
    "frozen-parameter-still-moves",
    "The parameter was frozen while a gradient stood in its .grad, and zero_grad(set_to_none=False) makes that a zero. "
    "The optimizer skips None only: by weight decay and momentum the parameter goes on moving.",
    "for p in backbone.parameters():\n    p.requires_grad_(False)\n    p.grad = None",
)
NOT_FROZEN = Rule(
    "GP505",
    "module-that-only-looks-frozen",
    "A module has no requires_grad: the assignment makes an attribute that nothing reads, and its parameters go on to "
    "be trained.",
    "model.backbone.requires_grad_(False)",
    reported="https://github.com/CSCYQJ/MICCAI23-ProtoContra-SFDA/issues/18",
)

OWN_LOAD = Rule(
    "GP507",
    "loaded-its-own-weights",
    "state_dict() returns the tensors of the model, not copies. What was kept as the best state has changed with every "
    "step since, and loading it changes nothing.",
    "best = copy.deepcopy(model.state_dict())",
    reported="https://docs.pytorch.org/tutorials/beginner/saving_loading_models.html",
)

FEW = 3
"""Steps that are enough to see a habit."""

_WORDS = {
    Origin.LATE: (MADE_LATER, "came into the model after the optimizer of {0} was built; no optimizer holds {1}"),
    Origin.THAWED: (THAWED, "required no gradient when the optimizer of {0} was built; no optimizer holds {1}"),
    Origin.IN_LIST: (IN_LIST, "stand in a plain list beside {0}, where parameters() does not find them"),
}
"""For the ways into no optimizer that are wrong: the rule, and a sentence."""


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield the frozen parameters that the optimizer goes on moving."""
    groups = [group for group in story.groups if group.get("weight_decay") or group.get("momentum") or "betas" in group]
    last = [w for w in windows if w.made is not None and w.end is not None and not w.made.skipped][-FEW:]
    zeros = [
        {i for i, g in enumerate(w.end.before) if g is not None and g.norm == 0 and i in w.made.frozen}
        for w in last
        if w.end is not None and w.made is not None
    ]
    still = sorted(set.intersection(*zeros)) if len(zeros) == FEW else []
    if still and groups and last[0].end is not None:
        names = ", ".join(story.names[i] for i in still[:3]) + (f" and {len(still) - 3} more" if len(still) > 3 else "")
        words = (
            f"{names} required no gradient any more, and the optimizer read zeros in .grad, in the last {times(FEW)}"
        )
        yield RuleFinding(STILL_MOVES, RuleVerdict.WRONG, words, last[0].end.line, None, last[0].step)


def of_run(facts: RunFacts) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    if not any(story.steps for story in facts.stories):
        return
    if facts.loads:
        load = facts.loads[0]
        words = f"{load.name} was given its own tensors, {times(len(facts.loads), 'time')}: this load changes nothing"
        yield RuleFinding(OWN_LOAD, RuleVerdict.WRONG, words, load.line, times=len(facts.loads))
    for module in facts.not_frozen:
        if module.times > 1:
            words = f"{module.name}.requires_grad was set to False, and {times(module.times, 'backward')} trained it"
            yield RuleFinding(NOT_FROZEN, RuleVerdict.WRONG, words, module.line, times=module.times)
    rest = [p for p in facts.outsiders if p.times > 1]
    for origin, (rule, words) in _WORDS.items():
        found = [p for p in rest if p.origin is origin and p.beside]
        rest = [p for p in rest if p not in found]
        if found:
            number = times(found[0].times, "backward")
            words = words.format(found[0].beside, _them(found))
            sentence = f"{_names(found)} {words}, and {number} computed gradients for {_them(found)}"
            yield RuleFinding(rule, RuleVerdict.WRONG, sentence, found[0].line, times=found[0].times)
    inputs = all(story.loose for story in facts.stories if story.steps)  # trains an image, or a prompt
    if rest and not inputs:
        number = times(rest[0].times, "backward")
        sentence = f"{_names(rest)} got gradients in {number}, and no optimizer holds {_them(rest)}"
        yield RuleFinding(IN_NO_OPTIMIZER, RuleVerdict.UNUSUAL, sentence, rest[0].line, times=rest[0].times)


def _names(found: Sequence[Outsider]) -> str:
    return ", ".join(p.name for p in found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")


def _them(found: Sequence[Outsider]) -> str:
    return "it" if len(found) == 1 else "them"
