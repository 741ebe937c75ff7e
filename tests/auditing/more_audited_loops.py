"""More small loops that break a rule, and their repairs: padding, steps, casts, layers, averages, schedules."""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from audited_loops import STEPS, X, Y, in_half, loss_of, regularized, small

IGNORED = -100
PADDED = [Y.clone() for _ in range(2 * STEPS)]
for number, padded in enumerate(PADDED):
    padded[12 - 3 * (number % 3) :] = IGNORED


def steps_of_two(divisor, optimizer=None):
    """A loop over padded targets in windows of two, whose summed loss is divided by ``divisor(window)``."""
    model, sgd = small()
    for at in range(0, len(PADDED), 2):
        sgd.zero_grad()
        for y in (window := PADDED[at : at + 2]):
            (F.cross_entropy(model(X), y, reduction="sum") / divisor(window)).backward()
        sgd.step()


def tokens_of(window):
    return sum(int((y != IGNORED).sum()) for y in window)


def summed(right):
    steps_of_two(tokens_of if right else len)


def counted_in_the_first(right):
    steps_of_two(tokens_of if right else lambda window: tokens_of(window[:1]) * len(window))


def squared(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model)
        (loss if right else loss * loss).backward()
        optimizer.step()


def ascending(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        (loss_of(model) * (1 if right else -1)).backward()
        optimizer.step()


def stepped_after_the_first(right):
    model, optimizer = small()
    for i in range(4 * STEPS):
        (loss_of(model) / (3 if i or right else 1)).backward()
        if (i + right) % 3 == 0:
            optimizer.step()
            optimizer.zero_grad()


def branching(right, by_sum=False):
    """A model with a branch that only some steps take."""
    model, branch = nn.Linear(4, 3), nn.Linear(4, 3)
    optimizer = torch.optim.AdamW([*model.parameters(), *branch.parameters()], lr=0.01)
    for step in range(STEPS):
        out = model(X) + (branch(X) if step % 3 == 0 else 0.0)
        if by_sum and not right:
            out = out + 0.0 * sum(p.sum() for p in branch.parameters())
        F.cross_entropy(out, Y).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=right or by_sum)


def touched_by_zero(right):
    branching(right, by_sum=True)


def decayed_by_hand(right):
    model, _ = small()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        if not right:
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(1 - 0.1 * 0.1)
        optimizer.step()


def penalty_after_the_clip(right):
    model, _ = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        for p in model.parameters():
            p.grad.add_(p.detach(), alpha=0.0 if right else 0.1)
        optimizer.step()


def unscaled_before_a_clip(right):
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(in_half(model)).backward()
        if right:
            scaler.unscale_(optimizer)
        else:
            for p in model.parameters():
                p.grad.div_(scaler.get_scale())
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        scaler.update()


def rounded(right):
    model, optimizer = small()
    for _ in range(STEPS):
        optimizer.zero_grad()
        for x, y in zip(X.split(4), Y.split(4), strict=True):
            (loss_of(model, x, y) / 3).backward()
            for p in model.parameters():
                p.grad.copy_(p.grad if right else p.grad.bfloat16())
        optimizer.step()


def overflow_hidden(right):
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30)
    for _ in range(STEPS):
        optimizer.zero_grad()
        scaler.scale(in_half(model)).backward()
        if not right:
            for p in model.parameters():
                torch.nan_to_num_(p.grad, 0.0, 0.0, 0.0)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()


def recomputed(layer, right, **options):
    """A loop with a checkpointed block, with ``layer`` in it or after it."""
    first, last = nn.Sequential(nn.Linear(4, 8), nn.Identity() if right else layer), nn.Linear(8, 3)
    model = nn.Sequential(first, layer if right else nn.Identity(), last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        hidden = checkpoint(first, X, use_reentrant=False, **options)
        F.cross_entropy(last(model[1](hidden)), Y).backward()
        optimizer.step()


def normalized_twice(right):
    recomputed(nn.BatchNorm1d(8), right)


def other_masks(right):
    recomputed(nn.Dropout(0.5), right, preserve_rng_state=False)


def statistics_lost(right):
    model = regularized()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        if step == 3 and not right:
            model[1].reset_running_stats()
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def dropout_off(right):
    model = regularized()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if not right:
        model[2].eval()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


def cast_once(right):
    model, optimizer = small()
    with nullcontext() if right else torch.autocast("cpu", dtype=torch.bfloat16):
        for _ in range(STEPS):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(model)
            loss.backward()
            optimizer.step()


def averaged(right, skipped=False):
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, backoff_factor=2.0**-20)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(2 * STEPS):
        optimizer.zero_grad()
        for _ in range(2):
            scaler.scale(in_half(model) / 2).backward()
            if not right and not skipped:
                average.update_parameters(model)
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update(2.0**30 if skipped and step in (STEPS, STEPS + 3) else None)
        if (skipped and not right) or (right and scaler.get_scale() >= scale):
            average.update_parameters(model)


def averaged_on_skipped_steps(right):
    averaged(right, skipped=True)


def schedule_at_two_places(right):
    model, optimizer = small()
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    for _ in range(2):
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
            schedule.step()
        if not right:
            schedule.step()


def tracker_reset(right):
    model, optimizer = small()
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for step in range(STEPS):
        optimizer.zero_grad()
        if step == 3:
            scaler.load_state_dict(scaler.state_dict() if right else {**scaler.state_dict(), "_growth_tracker": 0})
        scaler.scale(in_half(model)).backward()
        scaler.step(optimizer)
        scaler.update()


def updated_between_two_optimizers(right):
    model, optimizer = small()
    head = nn.Linear(3, 3)
    other = torch.optim.SGD(head.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        other.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(head(model(X)).float(), Y)
        scaler.scale(loss).backward()
        for one, parameters in ((optimizer, model.parameters()), (other, head.parameters())):
            scaler.unscale_(one)
            nn.utils.clip_grad_norm_(parameters, 0.05)
        scaler.step(optimizer)
        if not right:
            scaler.update()
        scaler.step(other)
        scaler.update()


MORE = {
    stepped_after_the_first: ("GP110", "unusual"),
    branching: ("GP111", "unusual"),
    touched_by_zero: ("GP111", "unusual"),
    tracker_reset: ("GP207", "unusual"),
    unscaled_before_a_clip: ("GP208", "wrong"),
    updated_between_two_optimizers: ("GP208", "wrong"),
    overflow_hidden: ("GP209", "unusual"),
    penalty_after_the_clip: ("GP305", "unusual"),
    summed: ("GP408", "unusual"),
    counted_in_the_first: ("GP409", "unusual"),
    squared: ("GP410", "unusual"),
    ascending: ("GP411", "unusual"),
    normalized_twice: ("GP608", "unusual"),
    statistics_lost: ("GP609", "unusual"),
    dropout_off: ("GP610", "unusual"),
    other_masks: ("GP611", "unusual"),
    cast_once: ("GP612", "wrong"),
    rounded: ("GP707", "unusual"),
    decayed_by_hand: ("GP808", "unusual"),
    schedule_at_two_places: ("GP818", "unusual"),
    averaged: ("GP821", "unusual"),
    averaged_on_skipped_steps: ("GP822", "unusual"),
}
"""For each loop, the rule that its wrong form breaks, and the verdict."""
