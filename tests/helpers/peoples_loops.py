"""Right loops as people write them: without what they do not need, or with their own optimizer, clip and learning rate."""

import itertools
import math

import torch
from torch import nn


def one_batch_a_step(model, optimizer, batches, loss):
    for batch in batches:
        optimizer.zero_grad()
        tokens = (batch.targets != -100).sum()
        (loss(model, batch) / tokens).backward()
        optimizer.step()


def with_autocast(model, optimizer, batches, loss, plan):
    for _ in range(plan.epochs):
        for batch in batches:
            with plan.autocast():
                mean = loss(model, batch) / plan.count(batch)
            mean.backward()
            optimizer.step()
            optimizer.zero_grad()


def with_its_own_threshold(model, optimizer, batches, loss, scheduler, plan):
    for _ in range(plan.epochs):
        for batch in batches:
            optimizer.zero_grad()
            (loss(model, batch) / plan.count(batch)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()


def two_microbatches_a_step(model, optimizer, batches, loss, plan):
    for _ in range(plan.epochs):
        for start in range(0, len(batches), 2):
            window = batches[start : start + 2]
            tokens = sum(map(plan.count, window))
            for batch in window:
                (loss(model, batch) / tokens).backward()
            optimizer.step()
            optimizer.zero_grad()


def with_sgd_of_its_own(model, batches, loss, plan):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(plan.epochs):
        for batch in batches:
            optimizer.zero_grad()
            (loss(model, batch) / plan.count(batch)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()


def with_its_own_scheduler(model, optimizer, batches, loss, plan):
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(plan.epochs):
        for batch in batches:
            optimizer.zero_grad()
            (loss(model, batch) / plan.count(batch)).backward()
            optimizer.step()
        scheduler.step()


def windows(batches, plan):
    for _ in range(plan.epochs):
        for start in range(0, len(batches), plan.accumulation_steps):
            window = batches[start : start + plan.accumulation_steps]
            yield window, sum(map(plan.count, window))


def accumulate(model, optimizer, loss, scaler, plan, window, tokens):
    optimizer.zero_grad()
    for batch in window:
        with plan.autocast():
            mean = loss(model, batch) / tokens
        scaler.scale(mean).backward()
    scaler.unscale_(optimizer)


def step(optimizer, scaler, scheduler):
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    if scaler.get_scale() >= scale:
        scheduler.step()


def clipped_by_hand(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        if norm > plan.max_norm:
            for gradient in gradients:
                gradient.mul_(plan.max_norm / (norm + 1e-6))
        step(optimizer, scaler, scheduler)


def clipped_by_squares(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Without a root, until the threshold is passed."""
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        squares = sum(float(g.pow(2).sum()) for g in gradients)
        if math.isfinite(squares) and squares > plan.max_norm**2:
            torch._foreach_mul_(gradients, plan.max_norm / math.sqrt(squares))
        step(optimizer, scaler, scheduler)


def collected_by_foreach(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        parameters, collected = list(model.parameters()), {}
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            gradients = torch.autograd.grad(scaler.scale(mean), parameters, allow_unused=True)
            found = {p: g.clone() for p, g in zip(parameters, gradients, strict=True) if g is not None}
            both = [p for p in found if p in collected]
            if both:
                torch._foreach_add_([collected[p] for p in both], [found[p] for p in both])
            collected |= {p: g for p, g in found.items() if p not in collected}
        for p in parameters:
            p.grad = collected.get(p)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, plan.max_norm)
        step(optimizer, scaler, scheduler)


def one_summed_loss(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        with plan.autocast():
            mean = sum(loss(model, batch) for batch in window) / tokens
        scaler.scale(mean).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


def divided_after_the_backward(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                total = loss(model, batch)
            scaler.scale(total).backward()
        for p in model.parameters():
            if p.grad is not None:
                p.grad /= tokens
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


def learning_rate_by_hand(model, optimizer, batches, loss, scaler, plan):
    steps = itertools.count()
    total = plan.epochs * math.ceil(len(batches) / plan.accumulation_steps)
    index = next(steps)
    for window, tokens in windows(batches, plan):
        rate = 0.02 * min((index + 1) / 3, 0.1 + 0.45 * (1 + math.cos(math.pi * max(0, index - 2) / (total - 2))))
        for group in optimizer.param_groups:
            group["lr"] = rate
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() >= scale:
            index = next(steps)


def learning_rate_in_a_tensor(model, optimizer, batches, loss, scaler, scheduler, plan):
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"])
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


def two_optimizers(model, batches, loss, scaler, plan):
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    both = torch.optim.AdamW(matrices, lr=0.02, weight_decay=0.1), torch.optim.SGD(vectors, lr=0.01)
    for window, tokens in windows(batches, plan):
        for optimizer in both:
            optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            scaler.scale(mean).backward()
        for optimizer in both:
            scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        for optimizer in both:
            scaler.step(optimizer)
        scaler.update()


RIGHT = [
    one_batch_a_step,
    with_autocast,
    with_its_own_threshold,
    two_microbatches_a_step,
    with_sgd_of_its_own,
    with_its_own_scheduler,
    clipped_by_hand,
    clipped_by_squares,
    collected_by_foreach,
    one_summed_loss,
    divided_after_the_backward,
    learning_rate_by_hand,
    learning_rate_in_a_tensor,
    two_optimizers,
]
