"""The part that all audit callbacks share: options, begin, end, and a guard, so that no error of ours ends a fit."""

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

from torch import nn
from torch.optim import Optimizer

from gradparity.auditing.presentation.as_text import as_text
from gradparity.auditing.report import Report
from gradparity.auditing.rules.expected import Expected
from gradparity.auditing.session import Audit
from gradparity.auditing.watching.watch import STEPS
from gradparity.errors import in_a_line
from gradparity.trace.isolation import aside, warn
from gradparity.trace.snapshot import unwrapped

Hook = TypeVar("Hook", bound=Callable[..., None])


class LoopIsWrong(AssertionError):  # noqa: N818  # a verdict, and no failure of the program
    """The verdict of an audit with ``fail_on_wrong=True``; raised after the fit, with the report as its message."""


def harmless(hook: Hook) -> Hook:
    """Let an error in a callback's hook end its audit, an :class:`AuditOfFit` in ``audit``, and never the fit."""

    @wraps(hook)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> None:
        if self.audit.fault is None:
            try:
                hook(self, *args, **kwargs)
            except Exception as error:
                self.audit.give_up(error)

    return cast(Hook, guarded)


class AuditOfFit:
    """An audit from the beginning of a fit to its end.

    Args:
        steps: the number of steps of each optimizer to watch.
        ignored: codes of rules that are not asked.
        fail_on_wrong: raise :class:`LoopIsWrong` after the fit if anything is wrong.
        meant: names and values of what was meant, as in :class:`gradparity.auditing.rules.expected.Expected`.

    Raises:
        TypeError: for a name that is not in it.
    """

    def __init__(
        self, steps: int = STEPS, ignored: Sequence[str] = (), fail_on_wrong: bool = False, **meant: Any
    ) -> None:
        Expected(**meant)  # a wrong name is an error now, not in the middle of a fit
        self.fail_on_wrong = fail_on_wrong
        self.report = Report()
        """The report; empty before the end of the fit."""
        self.fault: Exception | None = None
        """The error that ended the audit before the fit ended."""
        self._options: dict[str, Any] = {"steps": steps, "ignored": ignored, **meant}
        self._running: Audit | None = None  # made when a fit begins: until then a callback can be copied and pickled

    def begin(self, model: nn.Module, optimizers: Iterable[Any] = ()) -> None:
        """Watch a fit of ``model``; optimizers that were built before are given, those built later are found."""
        self.end()
        self.report = Report()
        known = [unwrapped(optimizer, "optimizer") for optimizer in optimizers]
        self._running = Audit(model, [o for o in known if isinstance(o, Optimizer)], **self._options).start()

    def end(self, error: BaseException | None = None) -> bool:
        """End the watching; return whether there is a new report."""
        running, self._running = self._running, None
        if running is None:
            return False
        with aside():
            self.report = running.stop(error)
        return True

    def print(self) -> None:
        """Print the report to standard error."""
        print(as_text(self.report), file=sys.stderr, flush=True)

    def raise_if_wrong(self) -> None:
        """Raise if the loop is wrong and was not to be.

        Raises:
            LoopIsWrong: with the report as its message.
        """
        if self.fail_on_wrong and self.report.wrong:
            raise LoopIsWrong(f"gradparity audit: the training loop is wrong\n{as_text(self.report)}")

    def give_up(self, error: Exception) -> None:
        """End the audit after an error of ours, with one warning."""
        self.fault = error
        with suppress(Exception):
            self.end()
        warn(f"the audit ends here, the training goes on: {in_a_line(error)}")
