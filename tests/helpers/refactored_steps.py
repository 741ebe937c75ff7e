"""Right loops that clip, scale, schedule and update in other ways than the reference."""

import copy
import math

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from peoples_loops import accumulate, step, windows


def gradients_of(model):
    return [p.grad for p in model.parameters() if p.grad is not None]


def clipping_with(clip):
    def loop(model, optimizer, batches, loss, scaler, scheduler, plan):
        for window, tokens in windows(batches, plan):
            accumulate(model, optimizer, loss, scaler, plan, window, tokens)
            clip(model, plan)
            step(optimizer, scaler, scheduler)

    loop.__name__ = loop.__qualname__ = clip.__name__
    return loop


@clipping_with
def clipped_one_by_one(model, plan):
    nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm, foreach=False)


@clipping_with
def clipped_in_two_calls(model, plan):
    norm = nn.utils.get_total_norm(gradients_of(model))
    nn.utils.clip_grads_with_norm_(list(model.parameters()), plan.max_norm, norm)


@clipping_with
def clipped_if_finite(model, plan):
    norm = math.sqrt(sum(g.norm().item() ** 2 for g in gradients_of(model)))
    if math.isfinite(norm) and norm > plan.max_norm:
        for p in model.parameters():
            if p.grad is not None:
                p.grad.data.mul_(plan.max_norm / norm)


@clipping_with
def clipped_over_finite_norms(model, plan):
    norms = torch.stack([g.norm() for g in gradients_of(model)])
    norm = norms[norms.isfinite()].norm()
    for g in gradients_of(model):
        g.mul_(torch.clamp(plan.max_norm / (norm + 1e-6), max=1.0))


@clipping_with
def clipped_by_a_flat_vector(model, plan):
    norm = torch.cat([g.flatten() for g in gradients_of(model)]).norm(2)
    coefficient = plan.max_norm / (norm + 1e-6)
    if coefficient < 1:
        for g in gradients_of(model):
            g.detach().mul_(coefficient)


@clipping_with
def clipped_in_double(model, plan):
    squares = sum(g.double().square().sum() for g in gradients_of(model))
    factor = (plan.max_norm / squares.sqrt().clamp(min=1e-12)).clamp(max=1.0)
    for p in model.parameters():
        if p.grad is not None:
            p.grad = (p.grad * factor).to(p.dtype)


@clipping_with
def clipped_by_an_unreached_value_too(model, plan):
    nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
    nn.utils.clip_grad_value_(model.parameters(), 1e4)


def scheduled_in_a_hook(model, optimizer, batches, loss, scaler, scheduler, plan):
    hook = optimizer.register_step_post_hook(lambda *_: scheduler.step())
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        scaler.step(optimizer)
        scaler.update()
    hook.remove()


def rate(step_, total, base=0.02):
    return base * min((step_ + 1) / 3, 0.1 + 0.45 * (1 + math.cos(math.pi * max(0, step_ - 2) / (total - 2))))


def own_schedule_of_the_same_values(model, optimizer, batches, loss, scaler, plan):
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 0.02
    total = plan.epochs * math.ceil(len(batches) / plan.accumulation_steps)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda at: rate(at, total, 1.0))
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


def own_schedule_by_epoch(model, optimizer, batches, loss, scaler, plan):
    scheduler = lr_scheduler.StepLR(optimizer, 1, gamma=0.3)
    for _ in range(plan.epochs):
        for start in range(0, len(batches), plan.accumulation_steps):
            window = batches[start : start + plan.accumulation_steps]
            accumulate(model, optimizer, loss, scaler, plan, window, sum(map(plan.count, window)))
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            scaler.step(optimizer)
            scaler.update()
        scheduler.step()


def rate_in_a_tensor_filled_by_hand(model, optimizer, batches, loss, scaler, plan):
    total = plan.epochs * math.ceil(len(batches) / plan.accumulation_steps)
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(0.0)
    made = 0
    for window, tokens in windows(batches, plan):
        for group in optimizer.param_groups:
            group["lr"].fill_(rate(made, total))
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        made += scaler.get_scale() >= scale


def without_a_scaler(model, optimizer, batches, loss, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            mean.backward()
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        optimizer.step()
        scheduler.step()


def scaled_by_hand(model, optimizer, batches, loss, scheduler, plan):
    scale = 256.0
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            (mean * scale).backward()
        torch._foreach_div_(gradients_of(model), scale)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        optimizer.step()
        scheduler.step()


def with_a_scaler_of_its_own(model, optimizer, batches, loss, scheduler, plan):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1000)
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)


def by_a_closure(model, optimizer, batches, loss, scheduler, plan):
    for window, tokens in windows(batches, plan):

        def closure(window=window, tokens=tokens):
            optimizer.zero_grad()
            total = 0.0
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                mean.backward()
                total += mean.item()
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            return total

        optimizer.step(closure)
        scheduler.step()


def own_optimizer(**options):
    def loop(model, batches, loss, scaler, plan):
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05, **options)
        for window, tokens in windows(batches, plan):
            accumulate(model, optimizer, loss, scaler, plan, window, tokens)
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            scaler.step(optimizer)
            scaler.update()

    loop.__name__ = loop.__qualname__ = f"own_{next(iter(options))}_adamw"
    return loop


def with_an_average(model, optimizer, batches, loss, scaler, scheduler, plan):
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)
        average.update_parameters(model)


def validated_on_a_copy(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
        step(optimizer, scaler, scheduler)
        copied = copy.deepcopy(model).eval()
        with torch.inference_mode():
            float(loss(copied, plan.held_out[0]))


def an_optimizer_for_each_parameter(model, batches, loss, plan):
    optimizers = [torch.optim.Adam([p], lr=1e-2) for p in model.parameters()]
    for window, tokens in windows(batches, plan):
        for optimizer in optimizers:
            optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            mean.backward()
        for optimizer in optimizers:
            optimizer.step()


RIGHT = [
    clipped_one_by_one,
    clipped_in_two_calls,
    clipped_if_finite,
    clipped_over_finite_norms,
    clipped_by_a_flat_vector,
    clipped_in_double,
    clipped_by_an_unreached_value_too,
    scheduled_in_a_hook,
    own_schedule_of_the_same_values,
    own_schedule_by_epoch,
    rate_in_a_tensor_filled_by_hand,
    without_a_scaler,
    scaled_by_hand,
    with_a_scaler_of_its_own,
    by_a_closure,
    own_optimizer(fused=True),
    own_optimizer(foreach=True),
    own_optimizer(capturable=False),
    with_an_average,
    validated_on_a_copy,
    an_optimizer_for_each_parameter,
]
