"""The stress scenario: one tiny training, designed so that every mistake of a loop has a visible effect.

A fault shows only under certain conditions, so all of them are present at once: windows of three microbatches and a
partial last one, uneven numbers of tokens, a norm that is mostly above the threshold, two parameter groups with
different weight decays, gradients of one weight that overflow whenever the loss scale has grown, a tied weight, two
parameters that enter only as a sum, a branch that most windows do not take, dropout, BatchNorm, a moving average that
takes part in the forward, a learning rate that never stays the same, validation, and a resume from a checkpoint.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from typing import IO, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from gradparity.parity.batch import PADDING, Batch, count, summed_loss
from gradparity.training import PRECISIONS, Run, backward, clip_by_norm, resume, train, warmup_cosine
from gradparity.training.checkpoint import resume as load_all
from gradparity.training.checkpoint import state_of
from gradparity.training.optimizers import decay_groups

TOKENS, LENGTH, WIDTH = 11, 6, 8
RARE = TOKENS - 1
"""The token that activates the branch; only two microbatches of an epoch contain it."""

MICROBATCHES = 11
ACCUMULATION_STEPS = 3
EPOCHS = 2
MAX_NORM = 30.0
EMA_DECAY = 0.9
INIT_SCALE, GROWTH_INTERVAL, GROWTH_FACTOR, BACKOFF_FACTOR = 2.0**12, 2, 8.0, 1 / 8


@dataclass(frozen=True)
class Plan:
    """The plan of a training: all that a loop is given besides the objects that it trains with."""

    epochs: int
    accumulation_steps: int
    """Microbatches per optimizer step; the last step of an epoch has fewer."""
    max_norm: float
    """The L2 norm to which all gradients together are clipped."""
    autocast: Callable[[], AbstractContextManager[Any]]
    """Makes the context for a forward."""
    count: Callable[[Batch], int]
    """Returns the number of tokens of a microbatch that enter its summed loss."""
    held_out: Sequence[Batch]
    """Microbatches for a validation after each epoch, if the loop makes one."""
    checkpoint: IO[bytes]
    """An open file in memory for a checkpoint, if the loop makes one."""
    restart: Callable[[], object]
    """Restores the initial state, as in a new process, for a loop that resumes from its checkpoint."""
    ema_decay: float = EMA_DECAY
    """The decay of an average of the weights, if the loop keeps one."""


@dataclass(frozen=True)
class Cast:
    """All arguments of a loop."""

    model: nn.Module
    optimizer: Optimizer
    batches: Sequence[Batch]
    """The microbatches of an epoch."""
    loss: Callable[[nn.Module, Batch], Tensor]
    """Returns the loss summed over the tokens of a microbatch, a scalar."""
    scaler: GradScaler
    scheduler: LRScheduler
    plan: Plan


class StressModel(nn.Module):
    """A model from tokens ``[n, LENGTH]`` to logits ``[n, LENGTH, TOKENS]``.

    Its matrices come before its vectors, so a norm over ``model.parameters()`` adds in the order of the optimizer.
    """

    average: Tensor
    """A moving average of the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(0.1 * torch.randn(LENGTH, WIDTH))
        self.position_correction = nn.Parameter(0.1 * torch.randn(LENGTH, WIDTH))
        self.embedding = nn.Embedding(TOKENS, WIDTH)
        self.measured = nn.Linear(4, WIDTH, bias=False)
        nn.init.normal_(self.measured.weight, std=0.02)
        self.up = nn.Linear(WIDTH, WIDTH, bias=False)
        self.down = nn.Linear(WIDTH, WIDTH, bias=False)
        self.rare = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, TOKENS, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(WIDTH)
        self.shift = nn.ParameterList([torch.zeros(WIDTH)])
        self.dropout = nn.Dropout(0.2)
        self.register_buffer("average", self.embedding.weight.detach().clone())

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of ``tokens``."""
        hidden = self.embedding(tokens)
        hidden = hidden + (self.position + self.position_correction)
        hidden = hidden + 0.02 * self.measured(self.measurements(tokens)) + 32 * self.shift[0]
        hidden = hidden + self.down(self.block(hidden))
        if (tokens == RARE).any():
            hidden = hidden + self.rare(hidden)
        logits: Tensor = self.head(hidden)
        return logits + 0.1 * F.linear(hidden, self.average)

    def block(self, hidden: Tensor) -> Tensor:
        """Apply normalization, a layer and dropout; keep the shape."""
        normalized = self.norm(hidden.flatten(0, 1)).view_as(hidden)
        active: Tensor = self.dropout(F.relu(self.up(normalized)))
        return active

    def measurements(self, tokens: Tensor) -> Tensor:
        """Return large numbers for each token, like inputs that were not normalized."""
        return F.one_hot(tokens % 4, 4) * self.average.new_tensor(1024.0)

    @torch.no_grad()
    def follow(self) -> None:
        """Move the moving average a step towards the embedding."""
        self.average.lerp_(self.embedding.weight, 0.1)


def build(precision: str) -> Cast:
    """Build everything in its initial state; weights come from torch's random state, data from its own generator."""
    model = StressModel().to(PRECISIONS[precision].parameters)
    optimizer = AdamW(decay_groups(model.parameters(), weight_decay=0.1), lr=0.02, amsgrad=True)
    optimizer.register_step_post_hook(lambda *_: model.follow())
    scheduler = warmup_cosine(optimizer, warmup_steps=2, total_steps=EPOCHS * -(-MICROBATCHES // ACCUMULATION_STEPS))
    scaler = GradScaler(
        "cpu",
        init_scale=INIT_SCALE,
        growth_factor=GROWTH_FACTOR,
        backoff_factor=BACKOFF_FACTOR,
        growth_interval=GROWTH_INTERVAL,
        enabled=precision == "fp16",
    )
    autocast = partial(PRECISIONS[precision].autocast, "cpu")
    run = run_of(model, optimizer, summed_loss, scaler, scheduler, autocast, MAX_NORM)
    now = state_of(run)
    beginning = {name: part if name == "random" else _copied(part) for name, part in now.items()}  # that is a copy
    plan = Plan(
        epochs=EPOCHS,
        accumulation_steps=ACCUMULATION_STEPS,
        max_norm=MAX_NORM,
        autocast=autocast,
        count=count,
        held_out=microbatches(3, seed=1),
        checkpoint=BytesIO(),
        restart=partial(_restart, run, beginning),
    )
    return Cast(model, optimizer, microbatches(MICROBATCHES, seed=0), summed_loss, scaler, scheduler, plan)


def _copied(value: Any) -> Any:
    """Return a copy of nested dicts and tensors; ``copy.deepcopy`` takes a third of the time of a :func:`build`."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        made = copy.copy(value)
        for name, part in value.items():
            made[name] = _copied(part)
        return made
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value


def _restart(run: Run, beginning: dict[str, Any]) -> None:
    """Bring ``run`` back to its beginning, by way of a file as in a new process."""
    file = BytesIO()
    torch.save(beginning, file)
    load_all(run, file)


def run_of(
    model: nn.Module,
    optimizer: Optimizer,
    loss: Callable[[nn.Module, Batch], Tensor],
    scaler: GradScaler,
    scheduler: LRScheduler,
    autocast: Callable[[], AbstractContextManager[Any]],
    max_norm: float,
) -> Run:
    """Return the :class:`gradparity.training.Run` that the reference needs."""
    return Run(
        model=model,
        loss=loss,
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=scaler,
        autocast=autocast,
        clip=clip_by_norm(max_norm),
        route=backward,
    )


def reference(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Sequence[Batch],
    loss: Callable[[nn.Module, Batch], Tensor],
    scaler: GradScaler,
    scheduler: LRScheduler,
    plan: Plan,
) -> None:
    """Run the reference loop, called like any loop: an epoch, a resume from its checkpoint, and the other epochs."""
    run = run_of(model, optimizer, loss, scaler, scheduler, plan.autocast, plan.max_norm)
    epochs = partial(
        train,
        run,
        batches,
        plan.held_out,
        accumulation_steps=plan.accumulation_steps,
        count=plan.count,
        checkpoint=plan.checkpoint,
    )
    epochs(epochs=range(1))
    plan.restart()
    resume(run, plan.checkpoint)
    epochs(epochs=range(1, plan.epochs))


def microbatches(number: int, seed: int) -> list[Batch]:
    """Return microbatches of three sequences each, padded to one length; the unpadded lengths vary each time."""
    return [Batch(inputs.clone(), targets.clone()) for inputs, targets in _drawn(number, seed)]


@cache
def _drawn(number: int, seed: int) -> list[Batch]:
    """Return the microbatches themselves, which nothing may write to."""
    random = torch.Generator().manual_seed(seed)
    made = []
    for index in range(number):
        tokens = torch.randint(RARE, (3, LENGTH + 1), generator=random)
        if index % 6 == 1:
            tokens[0, 2] = RARE
        targets = tokens[:, 1:].clone()
        for row, length in enumerate((LENGTH, 2 + index % 4, 1 + 2 * index % 5)):
            targets[row, length:] = PADDING
        made.append(Batch(tokens[:, :-1].clone(), targets))
    return made
