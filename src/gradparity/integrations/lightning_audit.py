"""A Lightning callback that audits a fit: what is wrong in the loop, in which line, and what to write instead.

    callback = AuditCallback()
    lightning.Trainer(callbacks=[callback], ...).fit(module, data)
    callback.report.verdict  # wrong, unusual, clean, or not judged

It works with ``lightning.pytorch`` and ``pytorch_lightning``. It changes no bit of the training.
"""

from collections.abc import Sequence
from typing import Any

import lightning

from gradparity.auditing.presentation.as_markdown import as_markdown
from gradparity.auditing.report import Report
from gradparity.auditing.watching.watch import STEPS
from gradparity.integrations.audit_of_fit import AuditOfFit, harmless


class AuditCallback(lightning.Callback):
    """A callback that audits every optimizer of a fit, and prints the report on rank zero when the fit has ended.

    A TensorBoard logger has the report as a text page. An error of the audit is a warning, and the fit goes on.

    Args:
        steps: the number of steps of each optimizer to watch.
        ignored: codes of rules that are not asked, such as ``GP303``; ``GP3`` stands for its theme.
        fail_on_wrong: raise :class:`~gradparity.integrations.audit_of_fit.LoopIsWrong` if the loop is wrong: after
            the fit, when all checkpoints are written, and on rank zero.
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
        """Return the report of the last fit; empty before its end."""
        return self.audit.report

    @harmless
    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Begin to watch, before the optimizers are built."""
        if stage == "fit":
            own: Any = trainer
            others = [callback for callback in own.callbacks if callback is not self]
            own.callbacks = [*others, self]  # so that all others end before it raises
            self.audit.begin(pl_module)

    @harmless
    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Report, while the loggers are still open."""
        if self.audit.end() and trainer.is_global_zero:
            self.audit.print()
            loggers: list[Any] = trainer.loggers
            for logger in loggers:
                if any(kind.__name__ == "TensorBoardLogger" for kind in type(logger).__mro__):
                    logger.experiment.add_text("gradparity/audit", as_markdown(self.report, type(pl_module).__name__))
                    logger.save()

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Raise if the loop is wrong and was not to be; nothing of the fit is left to do."""
        if stage == "fit" and trainer.is_global_zero:
            self.audit.raise_if_wrong()

    @harmless
    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Report what was seen until an exception ended the fit."""
        if self.audit.end(exception) and trainer.is_global_zero:
            self.audit.print()
