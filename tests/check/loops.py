"""Loops written by hand in plain PyTorch: correct ones, and wrong ones with one or more faults."""

import copy
import io

import torch
from torch import nn

from gradparity.cli.check import EXAMPLE

written: dict = {"torch": torch}
exec(EXAMPLE, written)
example = written["train"]


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
        model.train()
        for window in windows(batches, plan):
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=plan.max_norm)
            update(optimizer, scaler, scheduler)
            optimizer.zero_grad()


def counting_microbatches(model, optimizer, batches, loss, scaler, scheduler, plan):
    for _ in range(plan.epochs):
        tokens = 0
        for i, batch in enumerate(batches):
            if i % plan.accumulation_steps == 0:
                tokens = sum(map(plan.count, batches[i : i + plan.accumulation_steps]))
                model.zero_grad()
            with plan.autocast():
                total = loss(model, batch)
                (scaler.scale(total) / tokens).backward()  # backward under autocast; scaled first, divided then
            if (i + 1) % plan.accumulation_steps == 0 or i + 1 == len(batches):
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], plan.max_norm)
                update(optimizer, scaler, scheduler)


def autograd_grad_and_a_clip_by_hand(model, optimizer, batches, loss, scaler, scheduler, plan):
    parameters = list(model.parameters())
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                for p, g in zip(
                    parameters, torch.autograd.grad(scaler.scale(mean), parameters, allow_unused=True), strict=True
                ):
                    if g is not None:
                        p.grad = g.clone() if p.grad is None else p.grad + g
            scaler.unscale_(optimizer)
            gradients = [p.grad for p in parameters if p.grad is not None]
            norm = torch.stack([g.norm() for g in gradients]).norm()
            for g in gradients:
                g.mul_(torch.clamp(plan.max_norm / (norm + 1e-6), max=1.0))
            update(optimizer, scaler, scheduler)


def validated_saved_and_resumed(model, optimizer, batches, loss, scaler, scheduler, plan):
    for epoch in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            update(optimizer, scaler, scheduler)
        model.eval()
        with torch.no_grad():
            print("validation loss", sum(float(loss(model, batch)) for batch in plan.held_out))
        model.train()
        if epoch == 0:
            everything = {"model": model, "optimizer": optimizer, "scaler": scaler, "scheduler": scheduler}
            file = io.BytesIO()
            torch.save({**{k: v.state_dict() for k, v in everything.items()}, "random": torch.get_rng_state()}, file)
            plan.restart()
            file.seek(0)
            state = torch.load(file, weights_only=True)
            for name, thing in everything.items():
                thing.load_state_dict(state[name])
            torch.set_rng_state(state["random"])


def as_a_generator(model, optimizer, batches, loss, scaler, scheduler, plan):
    yield example(model, optimizer, batches, loss, scaler, scheduler, plan)


def gradients_kept_aside(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right, but `p.grad` is set once for all microbatches, so its gradients are not observed after each microbatch."""
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


IDENTICAL = (
    example,
    zero_grad_at_the_end,
    counting_microbatches,
    autograd_grad_and_a_clip_by_hand,
    validated_saved_and_resumed,
    as_a_generator,
)


def without_a_scaler(model, optimizer, batches, loss, scheduler, plan):
    """Right where nothing is scaled."""
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            tokens = sum(map(plan.count, window))
            for batch in window:
                (loss(model, batch) / tokens).backward()
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            optimizer.step()
            scheduler.step()


def clip_and_schedule_wrong(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Two known faults: clips what is still scaled, and advances the schedule on skipped steps."""
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()


def as_in_many_a_tutorial(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Three known faults: means of means, clipped scaled gradients, and the schedule of skipped steps."""
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / plan.count(batch) / plan.accumulation_steps
                scaler.scale(mean).backward()
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()


def wired_by_hand(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Three known faults, one of them in the first assignment to ``p.grad``."""
    parameters = list(model.parameters())
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / plan.count(batch) / len(window)
                gradients = torch.autograd.grad(scaler.scale(mean), parameters, allow_unused=True)
                for p, g in zip(parameters, gradients, strict=True):
                    if g is not None:
                        p.grad = g if p.grad is None else p.grad + g
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, plan.max_norm)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()


def shorter_and_shorter(model, optimizer, batches, loss, scaler, scheduler, plan):
    """No known fault: from the second epoch on, gradients are halved before they are clipped."""
    for epoch in range(plan.epochs):
        for window in windows(batches, plan):
            optimizer.zero_grad()
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
            scaler.unscale_(optimizer)
            for p in model.parameters():
                if epoch and p.grad is not None:
                    p.grad /= 2**0.5
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            update(optimizer, scaler, scheduler)


def three_things_wrong(model, optimizer, batches, loss, scaler, scheduler, plan):
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            scaler.step(optimizer)
            scaler.update()
            scheduler.step()


def behind_a_data_loader(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right, but a data loader draws a seed from torch's global stream."""
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    example(model, optimizer, list(loader), loss, scaler, scheduler, plan)


def a_data_loader_each_epoch(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right, as people write it: the loader draws a seed whenever it is iterated."""
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    for _ in range(plan.epochs):
        one = copy.copy(plan)
        object.__setattr__(one, "epochs", 1)
        example(model, optimizer, list(loader), loss, scaler, scheduler, one)


def seeded_and_shortened(model, optimizer, batches, loss, scaler, scheduler, plan):
    """No known fault: every window has the same masks, and its gradients are halved before they are clipped."""
    for _ in range(plan.epochs):
        for window in windows(batches, plan):
            torch.manual_seed(1)
            optimizer.zero_grad()
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
            scaler.unscale_(optimizer)
            for p in model.parameters():
                if p.grad is not None:
                    p.grad /= 2
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            update(optimizer, scaler, scheduler)
