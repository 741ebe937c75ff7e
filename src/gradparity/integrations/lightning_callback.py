"""A Lightning callback that compares a user's module, while it trains, with the reference step on a copy.

    trainer = lightning.Trainer(callbacks=[ParityCallback(count=lambda batch: len(batch[0]))], ...)

At the end of each window, the reference step runs on the microbatches that the Trainer has just used. It uses copies of
module, optimizer, schedule and loss scale, and the random numbers that the module had. An error in it ends the
comparison, never the training.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from types import SimpleNamespace
from typing import Any

import lightning
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from gradparity import training
from gradparity.parity import report
from gradparity.parity.verdict import Verdict, verdict_of
from gradparity.trace.diff import compare_traces
from gradparity.trace.events import Event, Record, Trace
from gradparity.trace.isolation import warn
from gradparity.trace.snapshot import TrainingObjects
from gradparity.trace.step_recorder import Recorder
from gradparity.training import Run, Window, take_step
from gradparity.training.random_numbers import random_state, restore_random


@dataclass(frozen=True)
class Microbatch:
    """The arguments of a training step, and the state of the random streams before it."""

    batch: Any
    index: int
    weight: int
    random: dict[str, Any]


def _harmless(hook: Callable[..., None]) -> Callable[..., None]:
    """Let an error in a hook end the comparison and not the training; draw no random number of the training."""

    @wraps(hook)
    def guarded(self: "ParityCallback", *args: Any, **kwargs: Any) -> None:
        if self.fault is not None:
            return
        try:
            with _own_random_numbers():
                hook(self, *args, **kwargs)
        except Exception as error:
            self._stop(error)

    return guarded


class ParityCallback(lightning.Callback):
    """A callback that reports the first place where ``Trainer.fit`` and the reference step make different updates.

    After ``fit``, ``verdict`` has the result, and a TensorBoard logger has it as a text page. Watching ends at the
    first difference: later ones only follow from it. After an error, which is a
    :class:`gradparity.trace.isolation.RecordingWarning`, ``fault`` has it, and ``verdict`` covers the steps before.

    Args:
        count: how many samples or tokens enter the mean loss of a batch; the reference weighs the microbatches of a
            window by it. Without ``count`` all microbatches weigh the same.
        loss: takes the module and a batch, returns that mean; by default the module's ``training_step`` is called.
            Needed with manual optimization, whose ``training_step`` does more than return a loss.
        max_norm: the threshold to which the reference clips the norm; by default the Trainer's.

    Raises:
        MisconfigurationException: from ``fit``, where ``loss`` is needed and missing, or there are several optimizers.
    """

    def __init__(
        self,
        count: Callable[[Any], int] = lambda batch: 1,
        loss: Callable[[lightning.LightningModule, Any], Tensor] | None = None,
        max_norm: float | None = None,
    ) -> None:
        self.count, self.loss, self.max_norm = count, loss, max_norm
        self.verdict = Verdict()
        self.fault: Exception | None = None
        """The error that ended the comparison before the training ended."""
        self._watching = ExitStack()
        self._window: list[Microbatch] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Refuse a training that cannot be watched; copy what takes part in any other, and begin to watch."""
        if self.loss is None and not pl_module.automatic_optimization:
            raise MisconfigurationException("ParityCallback needs loss=... for a module that optimizes by hand")
        if len(trainer.optimizers) != 1:
            raise MisconfigurationException(f"ParityCallback watches one optimizer, not {len(trainer.optimizers)}")
        self.fault = None
        self._begin(trainer, pl_module)

    @_harmless
    def _begin(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        schedules = trainer.lr_scheduler_configs
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        watched = TrainingObjects(
            pl_module, trainer.optimizers[0], scaler, schedules[0].scheduler if schedules else None
        )
        self._by_epoch = bool(schedules) and schedules[0].interval == "epoch"
        self._records: dict[str, list[Record]] = {"ours": [], "theirs": []}
        self._ours = Recorder(watched, lambda record, _: self._records["ours"].append(record), warns=False)
        twin = copy.deepcopy(watched)
        self._theirs = Recorder(twin, lambda record, _: self._records["theirs"].append(record), warns=False)
        self._run = self._reference(trainer, twin)
        self._watching.enter_context(self._ours.watching())

    @_harmless
    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Advance the reference's schedule, if it is one by epochs."""
        if self._by_epoch and trainer.current_epoch:
            with _quietly():
                self._theirs.watched.scheduler.step()

    @_harmless
    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the microbatch and the random state for the reference."""
        if self.verdict.first is None:
            self._window.append(Microbatch(batch, batch_idx, self.count(batch), random_state()))

    @_harmless
    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Run the reference on the window at its end, and compare."""
        self._require_recordings()
        if self._ours.step == self._theirs.step or self.verdict.first:
            return
        window = Window(tuple(self._window), normalizer=len(self._window))
        self._weights = [microbatch.weight for microbatch in self._window]
        self._window = []
        with self._ours.paused(), _quietly(), self._theirs.watching():
            take_step(self._run, window)
        self._require_recordings()
        ours, theirs = ([r for r in records if r.event != Event.END] for records in self._records.values())
        both = Trace({}, theirs, complete=False), Trace({}, ours, complete=False)
        verdict_of(compare_traces(*both), verdict=self.verdict)
        for records in self._records.values():
            records.clear()

    @_harmless
    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Report the verdict."""
        self._watching.close()
        rank_zero_info(f"gradparity: {report.verdict_headline(self.verdict)}\n{self.verdict.explanation}".strip())
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("gradparity/verdict", report.verdict_markdown(self.verdict))

    @_harmless
    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Stop watching."""
        self._watching.close()

    def _require_recordings(self) -> None:
        """Raise the error that ended one of the two recordings; a comparison would find what is only missing."""
        for fault in (self._ours.fault, self._theirs.fault):
            if fault is not None:
                raise fault

    def _stop(self, error: Exception) -> None:
        self.fault = error
        with suppress(Exception):
            self._watching.close()
        self._window = []
        name, words = type(error).__name__, " ".join(str(error).split())
        warn(f"ParityCallback stops comparing after {self.verdict.steps} steps, the training goes on: {name}: {words}")

    def _reference(self, trainer: lightning.Trainer, twin: TrainingObjects) -> Run:
        """Return a run of the reference step on the copies, with the Trainer's autocast and clipping."""
        module: Any = twin.model
        module.log = module.log_dict = lambda *_, **__: None  # it has no trainer to log to
        threshold = trainer.gradient_clip_val if self.max_norm is None else self.max_norm
        clip = training.clip_by_value if trainer.gradient_clip_algorithm == "value" else training.clip_by_norm
        stands_still: Any = SimpleNamespace(step=lambda: None)

        def loss(_: nn.Module, microbatch: Microbatch) -> Tensor:
            restore_random(microbatch.random)
            if self.loss is not None:
                mean: Any = self.loss(module, microbatch.batch)
            else:
                mean = module.training_step(microbatch.batch, microbatch.index)
            mean = mean["loss"] if isinstance(mean, Mapping) else mean
            # Exactly 1 if all weigh the same: the window's mean is then the mean of its microbatches' means.
            weighted: Tensor = mean * (microbatch.weight * len(self._weights) / sum(self._weights))
            return weighted

        return Run(
            model=module,
            loss=loss,
            optimizer=twin.optimizer,
            scheduler=stands_still if self._by_epoch or twin.scheduler is None else twin.scheduler,
            scaler=twin.scaler or GradScaler("cpu", enabled=False),
            autocast=trainer.precision_plugin.train_step_context,
            clip=training.in_order_of(twin.optimizer, clip(threshold)) if threshold else training.no_clip,
            route=training.backward,
        )


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Restore the random streams at the end of the block, so that the training draws as if it had not run."""
    numbers = random_state()
    try:
        yield
    finally:
        restore_random(numbers)


@contextmanager
def _quietly() -> Iterator[None]:
    """Suppress the warnings of a copy: the original has given them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
