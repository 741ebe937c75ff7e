"""A cell's two runs: the lanes of a configuration, with the cell's optimizer, schedule and average."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from gradparity import training
from gradparity.parity.lockstep import LockstepRun, Step
from gradparity.parity.state import HasState
from gradparity.processes.determinism import Device
from gradparity.studies import tasks
from gradparity.studies.lightning_two_ways.stepwise_trainer import moments_of
from gradparity.studies.matrix import refused_by_torch
from gradparity.studies.matrix.cell import MatrixCell
from gradparity.studies.tasks import Batch, Examples, Task
from gradparity.studies.tasks.gan import Gan, gan_step
from gradparity.studies.tasks.text import CharTransformer
from gradparity.studies.tasks.text_streams import Recurrent
from gradparity.studies.train_two_ways import build
from gradparity.studies.train_two_ways.config import Config
from gradparity.training import Moment, Phase, Run, Window
from gradparity.training.optimizers import decay_groups

STEPS_PER_CELL = 5
MICROBATCH_SIZE = 4
EXAMPLES = MICROBATCH_SIZE * 13 + 2
"""Examples in an epoch: 14 microbatches, the last of 2, so that 5 steps with K = 3, 4 or 8 meet a partial window."""


def cell_lane(cell: MatrixCell, loop: str, device: Device = "cpu") -> LockstepRun:
    """Return a run of ``cell`` on ``device`` by ``loop``: a route, or a loop with one fault."""
    made = build.lane(config_of(cell, device), task_of(cell.task), loop)
    model, step, also = made.run.model, made.step, dict[str, HasState]()
    trained: nn.Module = model
    if isinstance(model, Gan):
        trained, second = model.generator, optimizer_of(cell, model.discriminator)
        step, also["discriminator's optimizer"] = partial(gan_step, discriminator_optimizer=second), second
    if isinstance(model, Recurrent):
        also["recurrent state"] = Carried(model)
    optimizer = optimizer_of(cell, trained)
    if isinstance(optimizer, LBFGS) and not isinstance(model, Gan):
        step = lbfgs_step
    schedule = schedule_of(cell, optimizer)
    if isinstance(schedule, PlateauOfLoss):
        step = with_loss(step, schedule)
    if cell.average == "EMA":
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        step, also["EMA"] = with_average(step, average), average
    run = replace(
        made.run,
        optimizer=optimizer,
        scheduler=schedule,
        scaler=scaler_of(cell, device),
        clip=CLIPS[cell.clip],
    )
    return LockstepRun(run, step, made.random, also)


def cell_windows(cell: MatrixCell, device: Device = "cpu") -> Iterator[Window[Batch]]:
    """Return the windows of both lanes."""
    return build.windows(config_of(cell, device), task_of(cell.task))


def config_of(cell: MatrixCell, device: Device) -> Config:
    """Return the part of ``cell`` that a configuration can express; the task is passed separately."""
    return Config(
        precision=cast(Any, cell.precision),
        accumulation_steps=cell.k,
        microbatch_size=MICROBATCH_SIZE,
        steps=STEPS_PER_CELL,
        device=device,
    )


@cache
def task_of(name: str) -> Task:
    """Return a task with the data of one short epoch; the transformer is a small one."""
    task = (tasks.TASKS | tasks.RESTRICTED_TASKS)[name]()
    task = replace(task, train=Examples(*(part[:EXAMPLES] for part in task.train)))
    return replace(task, build=partial(CharTransformer, 16, 2, 1)) if name == "transformer" else task


def optimizer_of(cell: MatrixCell, trained: nn.Module) -> Optimizer:
    """Return the optimizer of ``cell``: if it can, with momentum, and with groups with and without weight decay."""
    name, _, implementation = cell.optimizer.partition(" ")
    kind: Callable[..., Optimizer] = getattr(torch.optim, name)
    parameters = [p for p in trained.parameters() if p.requires_grad]
    if name == "LBFGS":
        return kind(parameters, lr=0.5, max_iter=3)
    takes = inspect.signature(kind).parameters
    options: dict[str, Any] = {"lr": 0.01}
    if implementation:
        options[implementation] = True
    if "momentum" in takes and not breaks_with_momentum(cell, cast(Device, parameters[0].device.type)):
        options["momentum"] = 0.9
    # Optimizers refuse weight decay of sparse gradients too.
    decays = "weight_decay" in takes and cell.task != "sparse"
    return kind(decay_groups(parameters, 0.1) if decays else parameters, **options)


def breaks_with_momentum(cell: MatrixCell, device: Device = "cpu") -> bool:
    """Return whether momentum raises if a parameter's first gradient comes later than another's, as in fused SGD."""
    return cell.task == "branches" and refused_by_torch.a_late_gradient(cell.optimizer, device) is not None


def schedule_of(cell: MatrixCell, optimizer: Optimizer) -> LRScheduler:
    """Return the learning rate schedule of ``cell``."""
    match cell.schedule:
        case "one_cycle":
            cycles = bool(optimizer.defaults.get("momentum")) or "betas" in optimizer.defaults
            return OneCycleLR(optimizer, max_lr=0.02, total_steps=STEPS_PER_CELL + 1, cycle_momentum=cycles)
        case "plateau":
            return PlateauOfLoss(optimizer, factor=0.5, patience=0, threshold=100.0, threshold_mode="abs")
        case _:
            return training.warmup_cosine(optimizer, warmup_steps=2, total_steps=STEPS_PER_CELL)


def scaler_of(cell: MatrixCell, device: Device) -> GradScaler:
    """Return a scaler, enabled for fp16 only.

    Its scale grows by 2**30 after three steps, overflows in the fourth, and falls back. If clipping is to raise on a
    norm that is not finite, the scale stays low.
    """
    factor, fp16 = 2.0**30, cell.precision == "fp16"
    if cell.clip == "error_if_nonfinite":
        return GradScaler(device, init_scale=16.0, enabled=fp16)
    return GradScaler(device, 16.0, growth_factor=factor, backoff_factor=1 / factor, growth_interval=3, enabled=fp16)


def clip_or_raise(parameters: Sequence[nn.Parameter]) -> None:
    """Clip by norm, and raise if the norm is not finite."""
    nn.utils.clip_grad_norm_(parameters, 0.01, error_if_nonfinite=True)


CLIPS: dict[str, training.Clip] = {
    "none": training.no_clip,
    "norm": training.clip_by_norm(0.01),
    "value": training.clip_by_value(1e-3),
    "error_if_nonfinite": clip_or_raise,
}


@dataclass(frozen=True)
class Carried:
    """The state that a recurrent model carries from one microbatch to the next; it is not a buffer."""

    model: Recurrent

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state, by name."""
        return {"state": self.model.state}


class PlateauOfLoss(ReduceLROnPlateau):
    """A ``ReduceLROnPlateau`` whose ``step()`` takes no argument, as with other schedules: it reads ``self.loss``."""

    loss = 0.0

    def step(self, metrics: Any = None, epoch: int | None = None) -> None:  # type: ignore[override]  # others take no loss
        """Step on ``metrics`` or, without it, on ``self.loss``."""
        super().step(self.loss if metrics is None else metrics, epoch)


def with_loss(step: Step, schedule: PlateauOfLoss) -> Step:
    """Return ``step`` so that it passes its loss to ``schedule``."""

    def with_loss_passed(run: Run, window: Window[Any]) -> Iterator[Moment]:
        schedule.loss = 0.0
        for moment in step(run, window):
            schedule.loss += 0.0 if moment.loss is None else float(moment.loss)
            yield moment

    return with_loss_passed


def with_average(step: Step, average: AveragedModel) -> Step:
    """Return ``step`` so that it ends by updating the exponential moving average of the weights."""

    def averaged(run: Run, window: Window[Any]) -> Iterator[Moment]:
        for moment in step(run, window):
            if moment.phase == Phase.STEPPED:
                average.update_parameters(run.model)
            yield moment

    return averaged


def lbfgs_step(run: Run, window: Window[Any]) -> Iterator[Moment]:
    """Run a step of LBFGS, which calls the window's forwards and backwards itself, as often as its search needs.

    So gradients are clipped several times in a step. Each time is a phase of the last microbatch before it.
    """

    def loop(stop: Callable[[Moment], None]) -> None:
        stops = count()

        def closure() -> Tensor:
            run.optimizer.zero_grad(set_to_none=True)
            total, index = torch.zeros(()), 0
            for index, microbatch in zip(stops, window.microbatches, strict=False):
                with run.autocast():
                    loss = run.loss(run.model, microbatch) / window.normalizer
                stop(Moment(Phase.FORWARD, index, loss.detach()))
                run.route(loss, run.parameters)
                stop(Moment(Phase.ACCUMULATED, index))
                total = total + loss.detach()
            stop(Moment(Phase.UNSCALED, index))
            run.clip(run.parameters)
            stop(Moment(Phase.CLIPPED, index))
            return total

        run.scaler.step(run.optimizer, closure=closure)
        run.scheduler.step()
        stop(Moment(Phase.STEPPED))

    return moments_of(loop)
