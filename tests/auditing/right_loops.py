"""Right loops over the stress scenario, each written or rounded in its own way."""

import torch
from torch import nn

from peoples_loops import one_summed_loss
from refactored_gradients import several_losses_at_once


def windows(batches, plan):
    return [batches[i : i + plan.accumulation_steps] for i in range(0, len(batches), plan.accumulation_steps)]


def update(optimizer, scaler, scheduler):
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    if scaler.get_scale() >= scale:
        scheduler.step()


def zero_grad_at_the_end(model, optimizer, batches, loss, scaler, scheduler, plan):
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=plan.max_norm, foreach=True)
            update(optimizer, scaler, scheduler)
            optimizer.zero_grad()


def backward_under_autocast(model, optimizer, batches, loss, scaler, scheduler, plan):
    for _ in range(plan.epochs):
        tokens = 0
        for i, batch in enumerate(batches):
            if i % plan.accumulation_steps == 0:
                tokens = sum(map(plan.count, batches[i : i + plan.accumulation_steps]))
                model.zero_grad()
            with plan.autocast():
                total = loss(model, batch)
                (scaler.scale(total) / tokens).backward()
            if (i + 1) % plan.accumulation_steps == 0 or i + 1 == len(batches):
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], plan.max_norm)
                update(optimizer, scaler, scheduler)


def by_autograd_grad(model, optimizer, batches, loss, scaler, scheduler, plan):
    parameters = list(model.parameters())
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                gradients = torch.autograd.grad(scaler.scale(mean), parameters, allow_unused=True)
                for p, g in zip(parameters, gradients, strict=True):
                    if g is not None:
                        p.grad = g.clone() if p.grad is None else p.grad + g
            scaler.unscale_(optimizer)
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = torch.stack([g.norm() for g in gradients]).norm()
            for g in gradients:
                g.mul_(torch.clamp(plan.max_norm / (norm + 1e-6), max=1.0))
            update(optimizer, scaler, scheduler)


def gradients_kept_aside(model, optimizer, batches, loss, scaler, scheduler, plan):
    parameters = list(model.parameters())
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            tokens = sum(map(plan.count, window))
            sums = [None] * len(parameters)
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                gradients = torch.autograd.grad(scaler.scale(mean), parameters, allow_unused=True)
                sums = [s if g is None else g if s is None else s + g for s, g in zip(sums, gradients, strict=True)]
            for p, s in zip(parameters, sums, strict=True):
                p.grad = None if s is None else s.clone()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, plan.max_norm)
            update(optimizer, scaler, scheduler)


def divided_in_the_gradients(model, optimizer, batches, loss, scaler, scheduler, plan):
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            for batch in window:
                with plan.autocast():
                    total = loss(model, batch)
                scaler.scale(total).backward()
            scaler.unscale_(optimizer)
            for p in model.parameters():
                if p.grad is not None:
                    p.grad /= sum(map(plan.count, window))
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            update(optimizer, scaler, scheduler)


def mean_weighted_by_its_share(model, optimizer, batches, loss, scaler, scheduler, plan):
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / plan.count(batch)
                scaler.scale(mean * (plan.count(batch) / tokens)).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            update(optimizer, scaler, scheduler)


def validated_after_each_epoch(model, optimizer, batches, loss, scaler, scheduler, plan):
    for _ in range(plan.epochs):
        loader = torch.utils.data.DataLoader(list(range(len(batches))), batch_size=plan.accumulation_steps)
        for indices in loader:  # draws a seed from torch's numbers each epoch
            optimizer.zero_grad()
            tokens = sum(plan.count(batches[i]) for i in indices)
            for i in indices:
                with plan.autocast():
                    mean = loss(model, batches[i]) / tokens
                scaler.scale(mean).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            update(optimizer, scaler, scheduler)
        model.eval()
        with torch.no_grad():
            for batch in plan.held_out:
                loss(model, batch)
        model.train()


def without_a_scaler(model, optimizer, batches, loss, scheduler, plan):
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            tokens = sum(map(plan.count, window))
            for batch in window:
                (loss(model, batch) / tokens).backward()
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            optimizer.step()
            scheduler.step()


RIGHT_WITHOUT_A_SCALER = (without_a_scaler,)
RIGHT = (
    zero_grad_at_the_end,
    backward_under_autocast,
    by_autograd_grad,
    gradients_kept_aside,
    one_summed_loss,
    several_losses_at_once,
    divided_in_the_gradients,
    mean_weighted_by_its_share,
    validated_after_each_epoch,
)
