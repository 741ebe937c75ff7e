"""A rule on padding that the loss takes for tokens to be predicted."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow

PREDICTED = Rule(
    "GP412",
    "padding-is-predicted",
    "The model's embedding has a padding_idx, the targets hold it in runs, as at the end of short sequences, and the "
    "loss does not ignore it. The model learns to predict padding, which outweighs the tokens of short sequences.",
    "loss = F.cross_entropy(logits, targets, ignore_index=embedding.padding_idx)",
    right_in="a padding token that also ends the text",
    reported="https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html",
)

FEW = 3
"""Steps that are enough to see a habit."""


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what this rule finds."""
    losses = [(w, e, loss) for w in windows if w.made is not None for e, what in w.backwards for loss in what.losses]
    padded = [one for one in losses if one[2].padding]
    if len({w.step for w, _, _ in padded}) < FEW or 2 * len(padded) < len(losses):
        return
    padding, in_runs = sum(one.padding for _, _, one in padded), sum(one.in_runs for _, _, one in padded)
    if 2 * in_runs >= padding:
        window, event, loss = padded[0]
        words = (
            f"{loss.padding} of {times(loss.tokens, 'target')} are the embedding's padding_idx, and weigh as any other"
        )
        sentence = f"{words}, in {times(len(padded), 'backward')}"
        yield RuleFinding(PREDICTED, RuleVerdict.UNUSUAL, sentence, event.line, None, window.step, times=len(padded))
