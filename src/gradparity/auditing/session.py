"""``gradparity.audit``: watch a loop inside a program, as a ``with`` block or between two calls."""

import atexit
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from types import TracebackType

from torch import nn
from torch.optim import Optimizer

from gradparity.auditing.report import Report, report
from gradparity.auditing.rules.expected import Expected
from gradparity.auditing.scripts.facts_of_ranks import PATIENCE_INSIDE
from gradparity.auditing.watching.user_lines import raised
from gradparity.auditing.watching.watch import STEPS, Watch


class Audit:
    """An audit of everything that trains while it runs; :func:`audit` makes one."""

    def __init__(
        self,
        model: nn.Module | None = None,
        optimizer: Optimizer | Sequence[Optimizer] | None = None,
        *,
        steps: int = STEPS,
        ignored: Sequence[str] = (),
        **meant: float | str,
    ) -> None:
        self._watch = Watch(steps)
        self._ignored = ignored
        self._meant = Expected(**meant)  # type: ignore[arg-type]  # an unknown name is a TypeError
        self._stack = ExitStack()
        self._report: Report | None = None
        for one in [optimizer] if isinstance(optimizer, Optimizer) else optimizer or []:
            self._watch.add(one)
        if model is not None:
            self._watch.modules.add(model)

    def start(self) -> "Audit":
        """Begin to watch. The end of the program ends it too.

        Raises:
            UserError: if nothing would be seen on this version of torch.
        """
        self._stack.enter_context(self._watch.watching())
        atexit.register(self.stop)
        return self

    def stop(self, error: BaseException | None = None) -> Report:
        """End the watching, and return the report.

        Args:
            error: the exception that has ended the loop, if one has.
        """
        if self._report is None:
            if isinstance(error, Exception):
                self._watch.raised = raised(error)
            facts, *others = self._watch.all_facts(PATIENCE_INSIDE)
            self._report = report(facts, self._ignored, self._meant, others)
            with suppress(Exception):
                atexit.unregister(self.stop)
            self._stack.close()
        return self._report

    @property
    def report(self) -> Report:
        """Return the report: the final one after the end, else of what was seen until now."""
        return self._report or report(self._watch.facts(), self._ignored, self._meant)

    def __enter__(self) -> "Audit":
        """Begin to watch."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the watching; an exception of the loop passes on."""
        self.stop(error)


def audit(
    model: nn.Module | None = None,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    *,
    steps: int = STEPS,
    ignored: Sequence[str] = (),
    **meant: float | str,
) -> Audit:
    """Return an audit of everything that trains in a ``with`` block, or between ``start()`` and ``stop()``.

    It changes no bit of the training, and an error of its own never ends it. If several ranks train together, each
    audits itself, and the report of rank 0 is on all of them::

        with gradparity.audit() as audit:
            train(model, optimizer, batches)
        print(audit.report.verdict)  # wrong, unusual, clean, or not judged

    Args:
        model: the model to train; without it, models that are built later are found by themselves.
        optimizer: its optimizer; without it, optimizers that are built or used later are found.
        steps: the number of steps of each optimizer to watch.
        ignored: codes of rules that are not asked.
        meant: names and values of what was meant, as in :class:`gradparity.auditing.rules.expected.Expected`: anything
            else is wrong.

    Raises:
        TypeError: for a name that is not in it.
        UserError: for a word that is none of its choices.
    """
    return Audit(model, optimizer, steps=steps, ignored=ignored, **meant)
