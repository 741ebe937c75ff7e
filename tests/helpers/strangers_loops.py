"""Loops of people with other habits, sorted by what check makes of them: followed, not judged, or wrong."""

import torch
from torch import nn

from peoples_loops import windows


def one_batch_a_step(model, optimizer, batches, loss, plan, change=lambda model: None, penalty=lambda model: 0.0):
    for _ in range(plan.epochs):
        for batch in batches:
            optimizer.zero_grad()
            (loss(model, batch) / plan.count(batch) + penalty(model)).backward()
            change(model)
            optimizer.step()


def changing(change):
    """Return a right loop that changes its gradients before each step."""
    return lambda model, optimizer, batches, loss, plan: one_batch_a_step(model, optimizer, batches, loss, plan, change)


def gradients(model):
    return [p.grad for p in model.parameters() if p.grad is not None]


def adaptively(model):
    for p in model.parameters():
        if p.grad is not None:
            p.grad.mul_((0.01 * p.detach().norm().clamp(min=1e-3) / p.grad.norm().clamp(min=1e-6)).clamp(max=1.0))


def halve(model):
    torch._foreach_mul_(gradients(model), 0.5)


def clips_by_value(model, optimizer, batches, loss, plan):
    one_batch_a_step(
        model, optimizer, batches, loss, plan, lambda model: nn.utils.clip_grad_value_(model.parameters(), 0.5)
    )


def clips_by_hooks(model, optimizer, batches, loss, plan):
    for p in model.parameters():
        p.register_hook(lambda gradient: gradient.clamp(-1.0, 1.0))
    one_batch_a_step(model, optimizer, batches, loss, plan)


def clips_by_value_what_was_to_be_clipped_by_norm(model, optimizer, batches, loss, plan):
    one_batch_a_step(
        model, optimizer, batches, loss, plan, lambda m: nn.utils.clip_grad_value_(m.parameters(), plan.max_norm / 60)
    )


def clips_by_value_and_never_empties(model, optimizer, batches, loss, plan):
    for batch in batches * plan.epochs:
        (loss(model, batch) / plan.count(batch)).backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.5)
        optimizer.step()


def autocasts_itself(model, optimizer, batches, loss, plan):
    for batch in batches * plan.epochs:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            mean = loss(model, batch) / plan.count(batch)
        mean.backward()
        optimizer.step()


def autocasts_and_scales_itself(model, optimizer, batches, loss, plan):
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for batch in batches * plan.epochs:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            mean = loss(model, batch) / plan.count(batch)
        scaler.scale(mean).backward()
        scaler.step(optimizer)
        scaler.update()


def autocasts_itself_and_takes_the_scaler(model, optimizer, batches, loss, scaler, plan):
    for batch in batches * plan.epochs:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            mean = loss(model, batch) / plan.count(batch)
        scaler.scale(mean).backward()
        scaler.step(optimizer)
        scaler.update()


def scales_itself(model, optimizer, batches, loss, plan):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for batch in batches * plan.epochs:
        optimizer.zero_grad()
        with plan.autocast():
            mean = loss(model, batch) / plan.count(batch)
        scaler.scale(mean).backward()
        scaler.step(optimizer)
        scaler.update()


def schedules_by_epoch(model, optimizer, batches, loss, plan):
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
    for _ in range(plan.epochs):
        for batch in batches:
            optimizer.zero_grad()
            (loss(model, batch) / plan.count(batch)).backward()
            optimizer.step()
        scheduler.step()


def trains_some_layers(model, batches, loss, plan):
    optimizer = torch.optim.Adam([*model.up.parameters(), *model.down.parameters()], lr=1e-3)
    for batch in batches * plan.epochs:
        optimizer.zero_grad()
        (loss(model, batch) / plan.count(batch)).backward()
        optimizer.step()


def penalizes_weights(model, optimizer, batches, loss, plan):
    one_batch_a_step(
        model, optimizer, batches, loss, plan, penalty=lambda m: 1e-4 * sum(p.pow(2).sum() for p in m.parameters())
    )


def penalizes_weights_and_never_empties(model, optimizer, batches, loss, plan):
    for batch in batches * plan.epochs:
        (loss(model, batch) / plan.count(batch) + 1e-4 * sum(p.pow(2).sum() for p in model.parameters())).backward()
        optimizer.step()


def smooths_labels(model, optimizer, batches, plan):
    for batch in batches * plan.epochs:
        optimizer.zero_grad()
        logits = model(batch.inputs).flatten(0, -2)
        nn.functional.cross_entropy(logits, batch.targets.flatten(), label_smoothing=0.1).backward()
        optimizer.step()


def lookahead(model, optimizer, batches, loss, plan):
    slow = [p.detach().clone() for p in model.parameters()]
    for index, batch in enumerate(batches * plan.epochs):
        optimizer.zero_grad()
        (loss(model, batch) / plan.count(batch)).backward()
        optimizer.step()
        if index % 3 == 2:
            with torch.no_grad():
                for s, p in zip(slow, model.parameters(), strict=True):
                    s += 0.5 * (p - s)
                    p.copy_(s)  # by intent


def sharpness_aware(model, optimizer, batches, loss, plan):
    for batch in batches * plan.epochs:
        optimizer.zero_grad()
        (loss(model, batch) / plan.count(batch)).backward()
        with torch.no_grad():
            moves = [
                torch.zeros_like(p) if p.grad is None else 0.05 * p.grad / p.grad.norm() for p in model.parameters()
            ]
            torch._foreach_add_(list(model.parameters()), moves)
        optimizer.zero_grad()
        (loss(model, batch) / plan.count(batch)).backward()
        with torch.no_grad():
            torch._foreach_sub_(list(model.parameters()), moves)
        optimizer.step()


def with_a_closure(model, optimizer, batches, loss, plan):
    for batch in batches * plan.epochs:

        def closure(batch=batch):
            optimizer.zero_grad()
            mean = loss(model, batch) / plan.count(batch)
            mean.backward()
            return mean

        optimizer.step(closure)


def differentiates_twice(model, optimizer, batches, loss, plan):
    for batch in batches * plan.epochs:
        optimizer.zero_grad()
        mean = loss(model, batch) / plan.count(batch)
        mean.backward(retain_graph=True)
        mean.backward()
        optimizer.step()


def drops_the_odd_batch(model, optimizer, batches, loss, plan):
    for _ in range(plan.epochs):
        for pair in zip(batches[::2], batches[1::2], strict=False):
            optimizer.zero_grad()
            tokens = sum(map(plan.count, pair))
            for batch in pair:
                (loss(model, batch) / tokens).backward()
            optimizer.step()


def raises_after_a_step(model, optimizer, batches, loss, plan):
    for window, tokens in windows(batches, plan):
        for batch in window:
            (loss(model, batch) / tokens).backward()
            optimizer.step()
            torch.zeros(1, dtype=torch.long).mul_(0.5)


def freezes_a_layer(model, optimizer, batches, loss, scheduler, plan):
    model.embedding.weight.requires_grad = False
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            (loss(model, batch) / tokens).backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], plan.max_norm)
        optimizer.step()
        scheduler.step()


def freezes_a_layer_and_never_empties(model, optimizer, batches, loss, scheduler, plan):
    model.embedding.weight.requires_grad = False
    for window, tokens in windows(batches, plan):
        for batch in window:
            (loss(model, batch) / tokens).backward()
        nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], plan.max_norm)
        optimizer.step()
        scheduler.step()


def unfreezes_in_the_second_epoch(model, batches, loss, plan):
    late = [model.position, model.position_correction]
    for p in late:
        p.requires_grad_(False)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for epoch in range(plan.epochs):
        if epoch == 1:
            for p in late:
                p.requires_grad_(True)
            optimizer.add_param_group({"params": late, "lr": 1e-4})
        for batch in batches:
            optimizer.zero_grad()
            (loss(model, batch) / plan.count(batch)).backward()
            optimizer.step()


def descends_by_hand(model, batches, loss, plan):
    for batch in batches * plan.epochs:
        model.zero_grad()
        (loss(model, batch) / plan.count(batch)).backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= 0.01 * p.grad
