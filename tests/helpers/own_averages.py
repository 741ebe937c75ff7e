"""Loops that keep an average of the weights, one of their own or the one that they are given, right and wrong."""

from types import SimpleNamespace

import torch
from torch import nn

from peoples_loops import step, windows


class Ema:
    def __init__(self, model, decay):
        self.decay = decay
        self.shadow = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model):
        for name, p in model.named_parameters():
            self.shadow[name] = self.decay * self.shadow[name] + (1 - self.decay) * p.detach()

    @torch.no_grad()
    def swap(self, model):
        for name, p in model.named_parameters():
            kept = p.detach().clone()
            p.copy_(self.shadow[name])
            self.shadow[name] = kept


def averaging(every_microbatch=False, restore=Ema.swap):
    def loop(model, optimizer, batches, loss, scaler, scheduler, plan):
        ema = Ema(model, 0.9)
        for index, (window, tokens) in enumerate(windows(batches, plan)):
            optimizer.zero_grad()
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
                if every_microbatch:
                    ema.update(model)
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            step(optimizer, scaler, scheduler)
            if not every_microbatch:
                ema.update(model)
            if index == 3:
                model.eval()
                ema.swap(model)
                with torch.no_grad():
                    float(loss(model, plan.held_out[0]))
                restore(ema, model)
                model.train()

    return loop


def only_the_model_restored(ema, model):
    model.load_state_dict(ema.shadow, strict=False)


RIGHT = averaging()
EVERY_MICROBATCH = averaging(every_microbatch=True)
SWAPPED_BACK_WRONGLY = averaging(restore=only_the_model_restored)


def with_an_optimizer_of_its_own(model, batches, loss, plan):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ema = Ema(model, 0.9)
    for _ in range(plan.epochs):
        for batch in batches:
            optimizer.zero_grad()
            (loss(model, batch) / plan.count(batch)).backward()
            optimizer.step()
            ema.update(model)


KEPT = None
"""An average in a variable of the module."""


def kept_elsewhere(keep):
    """Return a loop that keeps its average where ``keep`` puts it, which returns where it is found again."""

    def loop(model, optimizer, batches, loss, plan):
        trainer = SimpleNamespace(callbacks=[SimpleNamespace()])
        find = keep(trainer, Ema(model, 0.9))
        for window, tokens in windows(batches, plan):
            optimizer.zero_grad()
            for batch in window:
                (loss(model, batch) / tokens).backward()
            optimizer.step()
            find().update(model)

    return loop


def in_a_callback(trainer, average):
    trainer.callbacks[0].ema = average
    return lambda: trainer.callbacks[0].ema


def in_the_module(trainer, average):
    global KEPT
    KEPT = average
    return lambda: KEPT


def given_one(update, every_microbatch=False):
    def loop(model, optimizer, batches, loss, plan, ema):
        for number, (window, tokens) in enumerate(windows(batches, plan)):
            optimizer.zero_grad()
            for batch in window:
                (loss(model, batch) / tokens).backward()
                if every_microbatch:
                    update(ema, model, plan, number)
            optimizer.step()
            if not every_microbatch:
                update(ema, model, plan, number)

    return loop


def moving(share, moves=lambda p: True):
    @torch.no_grad()
    def update(ema, model, plan, step):
        for mean, p in zip(ema.module.parameters(), model.parameters(), strict=True):
            if moves(p):
                mean.lerp_(p, share(plan, step))

    return update


def by_its_method(ema, model, plan, step):
    ema.update_parameters(model)


def named_like_an_average(model, optimizer, batches, loss, plan, ema=0.9):
    """It takes a number by the name of the average."""
    shadow = {name: p.detach().clone() for name, p in model.named_parameters()}
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            (loss(model, batch) / tokens).backward()
        optimizer.step()
        for name, p in model.named_parameters():
            shadow[name].lerp_(p.detach(), 1 - ema)


IN_A_TRAINER = kept_elsewhere(in_a_callback)
IN_THE_MODULE = kept_elsewhere(in_the_module)
GIVEN = given_one(by_its_method)
GIVEN_BY_HAND = given_one(moving(lambda plan, step: 1 - plan.ema_decay))
WARMED_UP = given_one(moving(lambda plan, step: 1 - min(plan.ema_decay, (1 + step) / (10 + step))))
GIVEN_AND_LEFT = given_one(lambda *_: None)
GIVEN_EVERY_MICROBATCH = given_one(by_its_method, every_microbatch=True)
DECAY_FOR_SHARE = given_one(moving(lambda plan, step: plan.ema_decay))
ONLY_MATRICES = given_one(moving(lambda plan, step: 1 - plan.ema_decay, moves=lambda p: p.ndim > 1))
