"""A callback for the Trainer of transformers that audits its training, and what a user's ``compute_loss`` does in it.

    callback = AuditCallback()
    transformers.Trainer(model, arguments, callbacks=[callback], ...).train()
    callback.report.verdict  # wrong, unusual, clean, or not judged

transformers is needed only here: ``pip install "gradparity[frameworks]"``.
"""

from collections.abc import Sequence
from typing import Any

from gradparity.auditing.report import Report
from gradparity.auditing.watching.watch import STEPS
from gradparity.integrations.audit_of_fit import AuditOfFit, harmless

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as missing:
    raise ImportError(
        "this callback is for the Trainer of transformers, which is not installed; pip install transformers"
    ) from missing


class AuditCallback(TrainerCallback):
    """A callback that audits a training, and prints the report on the first process when the training has ended.

    An error of the audit is a warning, and the training goes on.

    Args:
        steps: the number of steps to watch.
        ignored: codes of rules that are not asked, such as ``GP303``; ``GP3`` stands for its theme.
        fail_on_wrong: raise :class:`~gradparity.integrations.audit_of_fit.LoopIsWrong` if the loop is wrong: after
            the training, when all checkpoints are written, and on the first process.
        meant: names and values of what was meant, as in :class:`gradparity.auditing.rules.expected.Expected`.

    Raises:
        TypeError: for a name that is not in it.
    """

    def __init__(
        self, *, steps: int = STEPS, ignored: Sequence[str] = (), fail_on_wrong: bool = False, **meant: Any
    ) -> None:
        self.audit = AuditOfFit(steps, ignored, fail_on_wrong, **meant)

    @property
    def report(self) -> Report:
        """Return the report of the last training; empty before its end."""
        return self.audit.report

    @harmless
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin to watch the model and the optimizer, which the Trainer has built just now."""
        self.audit.begin(kwargs["model"], [kwargs["optimizer"]])

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report, and raise if the loop is wrong and was not to be."""
        self._report(state)
        if state.is_world_process_zero:
            self.audit.raise_if_wrong()

    @harmless
    def _report(self, state: TrainerState) -> None:
        if self.audit.end() and state.is_world_process_zero:
            self.audit.print()
