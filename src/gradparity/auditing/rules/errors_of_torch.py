"""Rules on errors of PyTorch that a wrong order of the loop brings about, with the repair."""

from collections.abc import Iterator

from gradparity.auditing.facts import RunFacts
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict

TWO_UNSCALES = Rule(
    "GP901",
    "unscaled-twice-before-an-update",
    "unscale_ may run once for each optimizer between two update(): once for the whole window, after its last "
    "microbatch, and update() has to follow also if the step was given up.",
    "scaler.unscale_(optimizer)  # after the last microbatch\nscaler.step(optimizer)\nscaler.update()",
)
STEPPED_BEFORE = Rule(
    "GP902",
    "step-without-update",
    "The scaler has already stepped since its last update(). Without update() the loss scale never changes.",
    "scaler.step(optimizer)\nscaler.update()  # once, after every step",
)
NOTHING_RECORDED = Rule(
    "GP903",
    "scaler-saw-no-gradient",
    "The scaler found no gradient to look for overflows in: they were emptied after the backward, the optimizer holds "
    "other parameters, or update() ran without a step.",
    "scaler.scale(loss).backward()\nscaler.step(optimizer)\nscaler.update()\noptimizer.zero_grad()",
)
NOT_SCALED = Rule(
    "GP904",
    "scaler-never-scaled",
    "The scaler has no scale yet, because no loss went through scaler.scale().",
    "scaler.scale(loss).backward()",
)
CLOSURE = Rule(
    "GP905",
    "closure-with-a-scaler",
    "scaler.step() takes no closure: the gradients have to be there before.",
    "scaler.scale(loss).backward()\nscaler.step(optimizer)",
)
UNUSED = Rule(
    "GP906",
    "unused-parameter-in-autograd-grad",
    "A parameter took no part in this loss. backward() leaves its .grad alone; autograd.grad raises by default.",
    "grads = torch.autograd.grad(loss, parameters, allow_unused=True)  # None for an unused parameter",
)
GRADIENT_DTYPE = Rule(
    "GP907",
    "gradient-of-another-dtype",
    "A gradient must have the dtype of its parameter.",
    "p.grad = g.to(p.dtype)",
)
SECOND_TIME = Rule(
    "GP908",
    "graph-differentiated-twice",
    "An earlier backward has freed the graph of this loss. A running total of losses keeps the graphs of all.",
    "total += loss.item()  # or loss.detach()",
)
IN_PLACE = Rule(
    "GP909",
    "weights-changed-before-a-backward",
    "A weight was changed in place, for example by a step, between the forward that used it and its backward.",
    "loss_a.backward()\nloss_b.backward()\noptimizer.step()",
)
DETACHED = Rule(
    "GP910",
    "loss-without-a-graph",
    "The loss has no graph: it was detached, made with .item(), or computed under no_grad.",
    "loss = criterion(model(x), y)\nloss.backward()",
)
RECOMPUTED = Rule(
    "GP911",
    "recomputed-otherwise",
    "A checkpoint recomputes its block in the backward and got another result than in the forward, for example because "
    "autocast was off there or the random numbers were not kept.",
    "with torch.autocast(device, dtype):\n    out = checkpoint(block, x, use_reentrant=False)",
)
REENTRANT = Rule(
    "GP912",
    "reentrant-checkpoint-and-autograd-grad",
    "A reentrant checkpoint runs a backward of its own inside, which autograd.grad cannot use.",
    "checkpoint(block, x, use_reentrant=False)",
)

SCHEDULE_OVER = Rule(
    "GP913",
    "schedule-is-over",
    "The scheduler was planned for fewer steps than it makes: count optimizer steps, not epochs, and microbatches only "
    "once a window.",
    "steps = epochs * math.ceil(len(loader) / accumulation_steps)\n"
    "scheduler = OneCycleLR(optimizer, max_lr, total_steps=steps)",
    reported="https://github.com/A4Bio/PiFold/issues/6",
)

IN_TWO_GROUPS = Rule(
    "GP914",
    "parameter-in-two-groups",
    "A parameter may be in one group only. A weight that two modules share, or a part of a model that another group "
    "holds as a whole, is listed twice.",
    "rest = [p for p in model.parameters() if not any(p is q for q in head.parameters())]",
)

_MESSAGES = (
    ("unscale_() has already been called", TWO_UNSCALES),
    ("unscale_() is being called after step()", STEPPED_BEFORE),
    ("step() has already been called since the last update()", STEPPED_BEFORE),
    ("No inf checks were recorded", NOTHING_RECORDED),
    ("_scale is None", NOT_SCALED),
    ("Closure use is not currently supported if GradScaler", CLOSURE),
    ("appears to not have been used in the graph", UNUSED),
    ("attempting to assign a gradient with dtype", GRADIENT_DTYPE),
    ("assigned grad has data of a different type", GRADIENT_DTYPE),
    ("backward through the graph a second time", SECOND_TIME),
    ("modified by an inplace operation", IN_PLACE),
    ("does not require grad and does not have a grad_fn", DETACHED),
    ("Recomputed values for the following tensors have different metadata", RECOMPUTED),
    ("A different number of tensors was saved during the original forward", RECOMPUTED),
    ("incompatible with .grad()", REENTRANT),
    ("which autograd.grad leaves out", REENTRANT),
    ("The specified number of total steps is", SCHEDULE_OVER),
    ("some parameters appear in more than one parameter group", IN_TWO_GROUPS),
)
"""The beginnings of PyTorch's messages, torch 2.11 to 2.15."""


def of_run(facts: RunFacts) -> Iterator[RuleFinding]:
    """Yield the rule that explains the exception which has ended the loop, if one does."""
    if facts.raised is None:
        return
    for message, rule in _MESSAGES:
        if message in facts.raised.message:
            sentence = f"{facts.raised.kind} ended the loop here: {facts.raised.message.split('. ')[0].rstrip('.')}"
            yield RuleFinding(rule, RuleVerdict.WRONG, sentence, facts.raised.line)
            return
