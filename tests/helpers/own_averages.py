"""Loops that keep an average of the weights of their own, in a dictionary of an object, right and wrong."""

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
