"""Loops that update the weights themselves, or with optimizers that PyTorch does not have, right and wrong."""

import torch
from torch import nn
from torch.nn import functional

from peoples_loops import windows


def adamw_written_out(model, batches, loss, plan):
    rate, beta1, beta2, eps, decay = 1e-3, 0.9, 0.999, 1e-8, 0.01
    means = [torch.zeros_like(p) for p in model.parameters()]
    squares = [torch.zeros_like(p) for p in model.parameters()]
    for step, (window, tokens) in enumerate(windows(batches, plan), start=1):
        model.zero_grad()
        for batch in window:
            (loss(model, batch) / tokens).backward()
        with torch.no_grad():
            for p, mean, square in zip(model.parameters(), means, squares, strict=True):
                if p.grad is not None:
                    p.mul_(1 - rate * decay)
                    mean.mul_(beta1).add_(p.grad, alpha=1 - beta1)
                    square.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                    root = (square / (1 - beta2**step)).sqrt() + eps
                    p.sub_(rate * (mean / (1 - beta1**step)) / root)


def sgd_written_out(zeroes=True, factor=1.0, at_once=False):
    def loop(model, batches, loss, plan):
        for window, tokens in windows(batches, plan):
            if zeroes:
                model.zero_grad()
            means = (factor * loss(model, batch) / tokens for batch in window)
            for mean in [sum(means)] if at_once else means:
                mean.backward()
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            with torch.no_grad():
                for p in model.parameters():
                    if p.grad is not None:
                        p -= 0.1 * p.grad

    return loop


def scheduled_by_what_it_was_given(model, optimizer, batches, loss, scheduler, plan):
    """Momentum written out, with the learning rates of the given optimizer."""
    momentum = {}
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            (loss(model, batch) / tokens).backward()
        with torch.no_grad():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        momentum[p] = 0.9 * momentum.get(p, 0) + p.grad
                        p -= group["lr"] * momentum[p]
        scheduler.step()


class Lion(torch.optim.Optimizer):
    """https://arxiv.org/abs/2302.06675, Algorithm 2."""

    def __init__(self, params):
        super().__init__(params, {"lr": 1e-3, "betas": (0.9, 0.99)})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                    p.add_(mean.lerp(p.grad, 1 - group["betas"][0]).sign(), alpha=-group["lr"])
                    mean.lerp_(p.grad, 1 - group["betas"][1])


def with_its(build, factor=1.0):
    def loop(model, batches, loss, plan):
        optimizer = build(model.parameters())
        for window, tokens in windows(batches, plan):
            optimizer.zero_grad()
            for batch in window:
                with plan.autocast():
                    mean = factor * loss(model, batch) / tokens
                mean.backward()
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            optimizer.step()

    return loop


def searched_by_lbfgs(model, batches, loss, plan):
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)
    for batch in batches:

        def closure(batch=batch):
            optimizer.zero_grad()
            mean = loss(model, batch) / plan.count(batch)
            mean.backward()
            return mean

        optimizer.step(closure)


def by_a_closure(model, optimizer, batches, loss, plan):
    for batch in batches:

        def closure(batch=batch):
            optimizer.zero_grad()
            mean = loss(model, batch) / plan.count(batch)
            mean.backward()
            return mean

        optimizer.step(closure)


def as_a_gan(own):
    def loop(model, optimizer, batches, loss, plan):
        judge = nn.Linear(8, 1)
        trains_model = torch.optim.Adam(model.parameters(), lr=1e-3) if own else optimizer
        trains_judge = torch.optim.Adam(judge.parameters(), lr=1e-3)
        for batch in batches:
            trains_judge.zero_grad()
            made = model.embedding(batch.inputs)
            judged = functional.softplus(judge(made.detach())) + functional.softplus(-judge(torch.randn_like(made)))
            judged.mean().backward()
            trains_judge.step()
            trains_model.zero_grad()
            fooled = functional.softplus(-judge(model.embedding(batch.inputs))).mean()
            (loss(model, batch) / plan.count(batch) + 0.1 * fooled).backward()
            trains_model.step()

    return loop


def the_first_that_one_writes(zeroes=True):
    """A batch a step, and gradients that become zeros instead of none."""

    def loop(model, batches, loss):
        for batch in batches:
            (loss(model, batch) / (batch.targets != -100).sum()).backward()
            with torch.no_grad():
                for p in model.parameters():
                    if p.grad is not None:
                        p -= 0.05 * p.grad
                        if zeroes:
                            p.grad.zero_()

    return loop


def with_gradients_of_its_own(model, batches, loss, plan):
    parameters = list(model.parameters())
    for window, tokens in windows(batches, plan):
        totals = [torch.zeros_like(p) for p in parameters]
        for batch in window:
            gradients = torch.autograd.grad(loss(model, batch) / tokens, parameters, allow_unused=True)
            for total, gradient in zip(totals, gradients, strict=True):
                if gradient is not None:
                    total += gradient
        with torch.no_grad():
            for p, total in zip(parameters, totals, strict=True):
                p -= 0.05 * total


def sharpness_aware(model, batches, loss):
    """https://arxiv.org/abs/2010.01412: each gradient is taken where the one before it leads."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for batch in batches:
        tokens = (batch.targets != -100).sum()
        (loss(model, batch) / tokens).backward()
        moved = [(p, 0.05 * p.grad / p.grad.norm().clamp(min=1e-6)) for p in model.parameters() if p.grad is not None]
        with torch.no_grad():
            for p, way in moved:
                p += way
        optimizer.zero_grad()
        (loss(model, batch) / tokens).backward()
        with torch.no_grad():
            for p, way in moved:
                p -= way
        optimizer.step()
        optimizer.zero_grad()
