"""Rules on training and evaluation mode."""

from collections.abc import Iterator, Sequence

from gradparity.audit.events import Account, Story
from gradparity.audit.finding import Finding, Rule, Verdict, times
from gradparity.audit.windows import Window

FROZEN_RETRAINED = Rule(
    "GP601",
    "frozen-module-back-in-training-mode",
    "train() reaches every module inside the one it is called on, also a frozen teacher that had been put into "
    "evaluation. Its dropout and batch normalization work again, and its outputs are random.",
    "model.train()\nmodel.teacher.eval()",
    reported="https://github.com/yxuansu/TaCL/issues/11",
)
NEVER_BACK = Rule(
    "GP602",
    "trained-in-evaluation-mode",
    "After an evaluation the model was not put back into training mode. From then on it trains without dropout and "
    "with the running statistics of batch normalization.",
    "model.eval()\nvalidate(model)\nmodel.train()",
)


def of_account(account: Account) -> Iterator[Finding]:
    """Yield the modules that were put back into training mode from outside."""
    for module in account.retrained:
        yield Finding(
            FROZEN_RETRAINED,
            Verdict.WRONG,
            f"{module.name} was put into evaluation at {module.evaluated}, and this train() put it back, though no "
            f"backward trains it; {times(module.backwards, 'backward')} followed",
            module.trained,
            module.evaluated,
            times=module.backwards,
        )


def of_story(story: Story, windows: Sequence[Window]) -> Iterator[Finding]:
    """Yield a model that stays in evaluation mode from some step on."""
    modes = [(w, e, what.modes) for w in windows for e, what in w.backwards if what.modes is not None and w.made]
    first = next((i for i, (_, _, mode) in enumerate(modes) if not mode.in_train and mode.evaluating), None)
    if not first or not all(mode.in_train and not mode.evaluating for _, _, mode in modes[:first]):
        return
    later = modes[first:]
    if len({window.step for window, _, _ in later}) < 2 or any(mode.in_train for _, _, mode in later):
        return
    window, event, mode = later[0]
    yield Finding(
        NEVER_BACK,
        Verdict.WRONG,
        f"{times(mode.evaluating, 'layer')} (dropout, batch normalization) are in evaluation mode from here on, and "
        "were in training mode before; train() was not called again",
        event.line,
        None,
        window.step,
        times=len(later),
    )
