"""Wrong loops whose faults are not in the dictionary, each with the faulty line marked by a comment: # wrong."""

import copy
import math

import torch
from torch import nn

from peoples_loops import accumulate, step, windows


def with_hooks(before_clip=None, after_clip=None, after_step=None, at_start=None):
    """Return a right loop that calls functions of ``(model, optimizer, scaler, plan, index)`` in it."""

    def loop(model, optimizer, batches, loss, scaler, scheduler, plan):
        if at_start is not None:
            at_start(model, optimizer, scaler, plan, 0)
        for index, (window, tokens) in enumerate(windows(batches, plan)):
            accumulate(model, optimizer, loss, scaler, plan, window, tokens)
            if before_clip is not None:
                before_clip(model, optimizer, scaler, plan, index)
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            if after_clip is not None:
                after_clip(model, optimizer, scaler, plan, index)
            step(optimizer, scaler, scheduler)
            if after_step is not None:
                after_step(model, optimizer, scaler, plan, index)

    return loop


def at(place):
    def made(function):
        loop = with_hooks(**{place: function})
        loop.__name__ = loop.__qualname__ = function.__name__
        WRONG.append(loop)
        return loop

    return made


WRONG = []


def wrong(loop):
    WRONG.append(loop)
    return loop


@at("after_clip")
def gradients_halved(model, optimizer, scaler, plan, index):
    for p in model.parameters():
        if p.grad is not None:
            p.grad *= 0.5  # wrong


@at("before_clip")
def noise_added(model, optimizer, scaler, plan, index):
    for index, p in enumerate(model.parameters()):
        if p.grad is not None:
            p.grad.data += 1e-3 * torch.sin(torch.arange(p.numel()).view_as(p) + index)  # wrong


@at("after_clip")
def last_gradient_lost(model, optimizer, scaler, plan, index):
    list(model.parameters())[3].grad = None  # wrong


@at("at_start")
def rate_divided_by_the_accumulation_steps(model, optimizer, scaler, plan, index):
    for group in optimizer.param_groups:
        group["lr"] /= plan.accumulation_steps  # wrong


@at("after_step")
def rate_decayed_by_hand_too(model, optimizer, scaler, plan, index):
    for group in optimizer.param_groups:
        group["lr"] *= 0.99  # wrong


@at("after_step")
def dropout_switched_off(model, optimizer, scaler, plan, index):
    if index == 1:
        model.dropout.p = 0.0  # wrong


@at("at_start")
def momentum_of_batch_norm(model, optimizer, scaler, plan, index):
    model.norm.momentum = 0.9  # wrong


@at("after_step")
def weights_limited(model, optimizer, scaler, plan, index):
    with torch.no_grad():
        for p in model.parameters():
            p.clamp_(-0.2, 0.2)  # wrong


@at("after_step")
def second_moments_forgotten(model, optimizer, scaler, plan, index):
    for state in optimizer.state.values():
        state["exp_avg_sq"].zero_()  # wrong


@at("after_step")
def bias_correction_counted_twice(model, optimizer, scaler, plan, index):
    for state in optimizer.state.values():
        state["step"] += 1  # wrong


@at("after_step")
def decays_swapped(model, optimizer, scaler, plan, index):
    if index == 2:
        first, second = optimizer.param_groups
        first["weight_decay"], second["weight_decay"] = second["weight_decay"], first["weight_decay"]  # wrong


@at("after_clip")
def signs_only(model, optimizer, scaler, plan, index):
    for p in model.parameters():
        if p.grad is not None:
            p.grad.sign_()  # wrong


@at("after_step")
def pulled_to_zero(model, optimizer, scaler, plan, index):
    torch._foreach_mul_([p.data for p in model.parameters()], 0.999)  # wrong


@at("after_step")
def layer_frozen_halfway(model, optimizer, scaler, plan, index):
    if index == 4:
        model.up.requires_grad_(False)  # wrong


@at("after_step")
def betas_changed(model, optimizer, scaler, plan, index):
    for group in optimizer.param_groups:
        group["betas"] = (0.5, 0.9)  # wrong


@at("after_step")
def embedding_normalized(model, optimizer, scaler, plan, index):
    model.embedding.weight.data /= model.embedding.weight.norm(dim=1, keepdim=True)  # wrong


@wrong
def gradients_faded_instead_of_zeroed(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        for p in model.parameters():
            if p.grad is not None:
                p.grad *= 0.1  # wrong
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            scaler.scale(mean).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


@wrong
def count_of_the_window_before(model, optimizer, batches, loss, scaler, scheduler, plan):
    last = 20
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / last  # wrong
            scaler.scale(mean).backward()
        last = tokens
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


@wrong
def last_microbatch_counts_twice(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
                if batch is window[-1]:
                    mean = mean * 2  # wrong
            scaler.scale(mean).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


@wrong
def clipped_by_the_norm_before(model, optimizer, batches, loss, scaler, scheduler, plan):
    norm = torch.tensor(1.0)
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, float(torch.clamp(plan.max_norm / (norm + 1e-6), max=1.0)))  # wrong
        norm = nn.utils.get_total_norm(gradients)
        step(optimizer, scaler, scheduler)


@wrong
def threshold_that_grows(model, optimizer, batches, loss, scaler, scheduler, plan):
    for index, (window, tokens) in enumerate(windows(batches, plan)):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm / 4 * (index + 1))  # wrong
        step(optimizer, scaler, scheduler)


@wrong
def last_parameter_not_clipped(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(list(model.parameters())[:-2], plan.max_norm)  # wrong
        step(optimizer, scaler, scheduler)


@wrong
def steps_on_small_losses_left_out(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        total = 0.0
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            total += mean.item()
            scaler.scale(mean).backward()
        if total < 8.2:
            continue  # wrong
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


@wrong
def every_fourth_window_lost(model, optimizer, batches, loss, scaler, scheduler, plan):
    for index, (window, tokens) in enumerate(windows(batches, plan)):
        if index % 4 == 2:
            continue  # wrong
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


@wrong
def unscaled_by_the_first_scale(model, optimizer, batches, loss, scaler, scheduler, plan):
    first = scaler.get_scale()
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            scaler.scale(mean).backward()
        for p in model.parameters():
            if p.grad is not None:
                p.grad /= first  # wrong
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        if all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None):
            optimizer.step()
            scheduler.step()


@wrong
def inputs_damaged_in_place(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        for batch in window:
            batch.inputs[0, 0] = 0  # wrong
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


@wrong
def last_sequence_masked(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        for batch in window:
            batch.targets[-1] = -100  # wrong
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


@wrong
def rolled_back_after_the_first_epoch(model, optimizer, batches, loss, scaler, scheduler, plan):
    kept = None
    for index, (window, tokens) in enumerate(windows(batches, plan)):
        if index == 2:
            kept = copy.deepcopy(model.state_dict())
        if index == 4:
            model.load_state_dict(kept)  # wrong
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


@wrong
def schedule_by_the_epoch_in_it(model, optimizer, batches, loss, scaler, scheduler, plan):
    for epoch in range(plan.epochs):
        for start in range(0, len(batches), plan.accumulation_steps):
            window = batches[start : start + plan.accumulation_steps]
            accumulate(model, optimizer, loss, scaler, plan, window, sum(map(plan.count, window)))
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            scaler.step(optimizer)
            scaler.update()
            scheduler.last_epoch = epoch  # wrong
            scheduler.step()


@wrong
def entropy_subtracted(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
                penalty = sum(p.abs().sum() for p in model.parameters())
                mean = mean + 1e-3 * penalty  # wrong
            scaler.scale(mean).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


@wrong
def clipped_to_the_mean_norm(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = math.sqrt(sum(float(g.pow(2).mean()) for g in gradients))
        if plan.max_norm / 10 < norm < math.inf:
            torch._foreach_mul_(gradients, plan.max_norm / 10 / norm)  # wrong
        step(optimizer, scaler, scheduler)
