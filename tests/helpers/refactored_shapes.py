"""Right loops of another shape: classes, generators, compiled models, other batches, several optimizers."""

import copy
import random

import torch
from torch import nn

from peoples_loops import accumulate, step, windows
from refactored_gradients import finish


class Trainer:
    def __init__(self, model, optimizer, scaler, scheduler, plan):
        self.model, self.optimizer, self.scaler, self.scheduler, self.plan = model, optimizer, scaler, scheduler, plan
        self.global_step = 0
        self.history = []

    def training_step(self, loss, batch, tokens):
        with self.plan.autocast():
            mean = loss(self.model, batch) / tokens
        self.history.append(mean.detach())
        self.scaler.scale(mean).backward()

    def optimizer_step(self):
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.max_norm)
        step(self.optimizer, self.scaler, self.scheduler)
        self.optimizer.zero_grad(set_to_none=True)
        self.global_step += 1

    def fit(self, loss, batches):
        self.model.train()
        for window, tokens in windows(batches, self.plan):
            for batch in window:
                self.training_step(loss, batch, tokens)
            self.optimizer_step()


def by_a_trainer(model, optimizer, batches, loss, scaler, scheduler, plan):
    Trainer(model, optimizer, scaler, scheduler, plan).fit(loss, batches)


def by_a_generator(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        yield "accumulated"
        finish(model, optimizer, scaler, scheduler, plan)
        yield "stepped"


def by_global_step(model, optimizer, batches, loss, scaler, scheduler, plan):
    k, each = plan.accumulation_steps, -(-len(batches) // plan.accumulation_steps)
    for global_step in range(plan.epochs * each):
        start = global_step % each * k
        window = batches[start : start + k]
        accumulate(model, optimizer, loss, scaler, plan, window, sum(map(plan.count, window)))
        finish(model, optimizer, scaler, scheduler, plan)


def compiled(backend):
    def loop(model, optimizer, batches, loss, scaler, scheduler, plan):
        fast = torch.compile(model, backend=backend)
        for window, tokens in windows(batches, plan):
            accumulate(fast, optimizer, loss, scaler, plan, window, tokens)
            finish(model, optimizer, scaler, scheduler, plan)

    loop.__name__ = loop.__qualname__ = f"compiled_by_{backend}"
    return loop


def with_a_compiled_loss(model, optimizer, batches, loss, scaler, scheduler, plan):
    fast = torch.compile(loss, backend="eager")
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, fast, scaler, plan, window, tokens)
        finish(model, optimizer, scaler, scheduler, plan)


def shuffled_by_a_data_loader(model, optimizer, batches, loss, scaler, scheduler, plan):
    loader = torch.utils.data.DataLoader(batches, batch_size=None, shuffle=True)
    for _ in range(plan.epochs):
        window = []
        for index, batch in enumerate(loader):
            window.append(batch)
            if len(window) == plan.accumulation_steps or index + 1 == len(loader):
                accumulate(model, optimizer, loss, scaler, plan, window, sum(map(plan.count, window)))
                finish(model, optimizer, scaler, scheduler, plan)
                window = []


def shuffled_by_hand(model, optimizer, batches, loss, scaler, scheduler, plan):
    for epoch in range(plan.epochs):
        order = list(batches)
        random.Random(epoch).shuffle(order)
        for start in range(0, len(order), plan.accumulation_steps):
            window = order[start : start + plan.accumulation_steps]
            accumulate(model, optimizer, loss, scaler, plan, window, sum(map(plan.count, window)))
            finish(model, optimizer, scaler, scheduler, plan)


def shuffled_by_a_permutation(model, optimizer, batches, loss, scaler, scheduler, plan):
    for _ in range(plan.epochs):
        order = torch.randperm(len(batches)).tolist()
        for start in range(0, len(order), plan.accumulation_steps):
            window = [batches[i] for i in order[start : start + plan.accumulation_steps]]
            accumulate(model, optimizer, loss, scaler, plan, window, sum(map(plan.count, window)))
            finish(model, optimizer, scaler, scheduler, plan)


def seeded_at_its_beginning(model, optimizer, batches, loss, scaler, scheduler, plan):
    torch.manual_seed(42)
    random.seed(42)
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        finish(model, optimizer, scaler, scheduler, plan)


def with_examples_drawn(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        if torch.rand(()) < 2:
            accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        finish(model, optimizer, scaler, scheduler, plan)


def with_best_weights_kept(model, optimizer, batches, loss, scaler, scheduler, plan):
    best, kept = float("inf"), None
    for _ in range(plan.epochs):
        for start in range(0, len(batches), plan.accumulation_steps):
            window = batches[start : start + plan.accumulation_steps]
            accumulate(model, optimizer, loss, scaler, plan, window, sum(map(plan.count, window)))
            finish(model, optimizer, scaler, scheduler, plan)
        model.eval()
        with torch.no_grad(), plan.autocast():
            mean = sum(loss(model, b).item() for b in plan.held_out) / sum(map(plan.count, plan.held_out))
        model.train()
        if mean < best:
            best, kept = mean, copy.deepcopy(model.state_dict())
    assert kept is not None


def two_adams(model, batches, loss, scaler, plan):
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizers = [torch.optim.AdamW(decayed, lr=1e-2, weight_decay=0.1), torch.optim.Adam(others, lr=3e-3)]
    for window, tokens in windows(batches, plan):
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            scaler.scale(mean).backward()
        for optimizer in optimizers:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        for optimizer in optimizers:
            scaler.step(optimizer)
            optimizer.zero_grad()
        scaler.update()


def two_adams_with_schedules(model, batches, loss, plan):
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizers = [torch.optim.AdamW(decayed, lr=1e-2), torch.optim.SGD(others, lr=1e-3, momentum=0.9)]
    schedulers = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) for optimizer in optimizers]
    for window, tokens in windows(batches, plan):
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            mean.backward()
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()


def one_batch_a_step_with_everything(model, optimizer, batches, loss, scaler, scheduler, plan):
    for _ in range(plan.epochs):
        for batch in batches:
            optimizer.zero_grad()
            with plan.autocast():
                mean = loss(model, batch) / plan.count(batch)
            scaler.scale(mean).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            step(optimizer, scaler, scheduler)


RIGHT = [
    by_a_trainer,
    by_a_generator,
    by_global_step,
    compiled("eager"),
    compiled("aot_eager"),
    compiled("inductor"),
    with_a_compiled_loss,
    shuffled_by_a_data_loader,
    shuffled_by_hand,
    shuffled_by_a_permutation,
    seeded_at_its_beginning,
    with_examples_drawn,
    with_best_weights_kept,
    two_adams,
    two_adams_with_schedules,
    one_batch_a_step_with_everything,
]
