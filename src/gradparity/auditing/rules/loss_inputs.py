"""Rules on what a loss function was given: logits, probabilities, and shapes."""

from collections.abc import Iterator, Sequence

from gradparity.auditing.events import LoopEvent
from gradparity.auditing.facts import Story
from gradparity.auditing.finding import Rule, RuleFinding, RuleVerdict, times
from gradparity.auditing.step_windows import StepWindow
from gradparity.auditing.watching.loss_inputs import Misfit

NOT_LOGITS = Rule(
    "GP421",
    "probabilities-in-the-place-of-logits",
    "The loss computes a softmax or sigmoid itself and was given the output of one. All probabilities come close to "
    "each other, the loss cannot get small, and gradients vanish.",
    "logits = model(x)  # no softmax or sigmoid in the model\nloss = F.cross_entropy(logits, y)",
    reported="https://github.com/Lightning-Universe/lightning-bolts/issues/654",
)
NOT_LOG_PROBABILITIES = Rule(
    "GP422",
    "no-log-probabilities",
    "nll_loss and ctc_loss expect log-probabilities and take the negative of what they are given. Without the "
    "logarithm they have no minimum at the right answer.",
    "loss = F.cross_entropy(logits, y)\n# or\nloss = F.nll_loss(F.log_softmax(logits, dim=1), y)",
    right_in="nll_loss as a way to pick one entry of each row",
    reported="https://github.com/clvrai/ACGAN-PyTorch/pull/4",
)
OTHER_DIMENSION = Rule(
    "GP423",
    "softmax-over-another-dimension",
    "The softmax normalizes over the samples, or positions, and not over the classes. The probabilities of one sample "
    "do not sum to 1, and depend on what else is in the batch.",
    "log_probabilities = F.log_softmax(logits, dim=1)  # dim of the classes",
)
BROADCAST = Rule(
    "GP424",
    "prediction-and-target-broadcast",
    "Prediction and target have shapes such as (N, 1) and (N). They were broadcast to (N, N), so each prediction is "
    "compared with the targets of all samples, and the model learns their mean.",
    "loss = F.mse_loss(prediction.squeeze(-1), target)  # the same shape",
    right_in="a difference of all pairs that is meant",
    reported="https://github.com/pytorch/pytorch/issues/16045",
)
ONE_CLASS = Rule(
    "GP425",
    "softmax-over-one-class",
    "A softmax over a single value is 1 whatever the model computes, so the loss has no gradient.",
    "loss = F.binary_cross_entropy_with_logits(logits.squeeze(-1), y.float())",
)
BOUNDED = Rule(
    "GP426",
    "bounded-scores-for-cross-entropy",
    "Cross-entropy expects scores of any sign and size. After a sigmoid or ReLU they are bounded, so that the loss "
    "cannot get small, and have no gradient at zero.",
    "logits = self.fc(x)  # no activation after the last layer",
    right_in="scores that are meant to be bounded",
)

_WORDS = {
    Misfit.SOFTMAX_TWICE: (NOT_LOGITS, RuleVerdict.WRONG, "cross-entropy was given the output of a softmax"),
    Misfit.SIGMOID_TWICE: (
        NOT_LOGITS,
        RuleVerdict.WRONG,
        "binary_cross_entropy_with_logits was given the output of a sigmoid or softmax",
    ),
    Misfit.PROBABILITIES: (
        NOT_LOG_PROBABILITIES,
        RuleVerdict.WRONG,
        "nll_loss was given probabilities, without a logarithm",
    ),
    Misfit.RAW_SCORES: (
        NOT_LOG_PROBABILITIES,
        RuleVerdict.UNUSUAL,
        "nll_loss was given the output of a linear layer or convolution",
    ),
    Misfit.RAW_SCORES_FOR_CTC: (
        NOT_LOG_PROBABILITIES,
        RuleVerdict.WRONG,
        "ctc_loss was given the output of a linear layer, without a log-softmax",
    ),
    Misfit.ACROSS_SAMPLES: (
        OTHER_DIMENSION,
        RuleVerdict.WRONG,
        "the log-softmax of this loss does not run over the classes",
    ),
    Misfit.ONE_CLASS: (ONE_CLASS, RuleVerdict.WRONG, "the softmax of this loss runs over a single value"),
    Misfit.OUTER: (BROADCAST, RuleVerdict.WRONG, "the loss function broadcast N predictions and N targets to (N, N)"),
    Misfit.OUTER_BY_HAND: (
        BROADCAST,
        RuleVerdict.UNUSUAL,
        "the difference of N predictions and a constant was broadcast to (N, N)",
    ),
    Misfit.BOUNDED_SCORES: (BOUNDED, RuleVerdict.UNUSUAL, "cross-entropy was given the output of a sigmoid or ReLU"),
}
"""For each misfit its rule, the verdict, and a sentence."""


def of_story(story: Story, windows: Sequence[StepWindow]) -> Iterator[RuleFinding]:
    """Yield what these rules find."""
    found: dict[Misfit, list[tuple[StepWindow, LoopEvent]]] = {}
    for window in windows:
        for event, what in window.backwards if window.made is not None else ():
            for misfit in what.misfits:
                found.setdefault(misfit, []).append((window, event))
    for misfit, places in found.items():
        rule, verdict, words = _WORDS[misfit]
        if len(places) > 1:
            window, event = places[0]
            sentence = f"{words}, in {times(len(places), 'backward')}"
            yield RuleFinding(rule, verdict, sentence, event.line, None, window.step, times=len(places))
