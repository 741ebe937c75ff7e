"""Right loops that compute and accumulate their gradients in other ways than the reference."""

import collections
import contextlib
import itertools

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from peoples_loops import accumulate, step, windows


def finish(model, optimizer, scaler, scheduler, plan):
    nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
    step(optimizer, scaler, scheduler)


def divided_by_foreach(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, 1)
        torch._foreach_div_([p.grad for p in model.parameters() if p.grad is not None], float(tokens))
        finish(model, optimizer, scaler, scheduler, plan)


def by_a_given_gradient(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                total = loss(model, batch)
            scaler.scale(total).backward(gradient=torch.tensor(1 / tokens, dtype=total.dtype))
        scaler.unscale_(optimizer)
        finish(model, optimizer, scaler, scheduler, plan)


def into_given_inputs(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad(set_to_none=True)
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            scaler.scale(mean).backward(inputs=[p for p in model.parameters() if p.requires_grad])
        scaler.unscale_(optimizer)
        finish(model, optimizer, scaler, scheduler, plan)


def several_losses_at_once(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        with plan.autocast():
            means = [loss(model, batch) / tokens for batch in window]
        torch.autograd.backward([scaler.scale(mean) for mean in means])
        scaler.unscale_(optimizer)
        finish(model, optimizer, scaler, scheduler, plan)


def stacked_losses(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        with plan.autocast():
            mean = torch.stack([loss(model, batch) for batch in window]).sum().div(tokens)
        optimizer.zero_grad()
        scaler.scale(mean).backward()
        scaler.unscale_(optimizer)
        finish(model, optimizer, scaler, scheduler, plan)


def added_in_place(model, optimizer, batches, loss, scaler, scheduler, plan):
    parameters = [p for p in model.parameters() if p.requires_grad]
    for window, tokens in windows(batches, plan):
        for p in parameters:
            p.grad = None
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens
            for p, g in zip(
                parameters, torch.autograd.grad(scaler.scale(mean), parameters, allow_unused=True), strict=True
            ):
                if g is None:
                    continue
                if p.grad is None:
                    p.grad = g.detach().clone()
                else:
                    p.grad += g
        scaler.unscale_(optimizer)
        finish(model, optimizer, scaler, scheduler, plan)


def by_functional_call(model, optimizer, batches, loss, scaler, scheduler, plan):
    def called(inputs):
        return functional_call(model, dict(model.named_parameters()) | dict(model.named_buffers()), (inputs,))

    for window, tokens in windows(batches, plan):
        accumulate(called, optimizer, loss, scaler, plan, window, tokens)
        finish(model, optimizer, scaler, scheduler, plan)


def divided_in_a_hook(model, optimizer, batches, loss, scaler, scheduler, plan):
    tokens = 1
    hooks = [p.register_hook(lambda gradient: gradient / tokens) for p in model.parameters()]
    for window, count in windows(batches, plan):
        tokens = count
        accumulate(model, optimizer, loss, scaler, plan, window, 1)
        finish(model, optimizer, scaler, scheduler, plan)
    for hook in hooks:
        hook.remove()


def watched_by_hooks(model, optimizer, batches, loss, scaler, scheduler, plan):
    norms = collections.defaultdict(list)
    hooks = [
        p.register_post_accumulate_grad_hook(lambda p, name=name: norms[name].append(float(p.grad.norm())))
        for name, p in model.named_parameters()
    ]
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        finish(model, optimizer, scaler, scheduler, plan)
    for hook in hooks:
        hook.remove()


def with_a_checkpointed_layer(model, optimizer, batches, loss, scaler, scheduler, plan):
    forward = model.down.forward
    model.down.forward = lambda hidden: checkpoint(forward, hidden, use_reentrant=False)
    for window, tokens in windows(batches, plan):
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        finish(model, optimizer, scaler, scheduler, plan)
    del model.down.forward


def saved_elsewhere(model, optimizer, batches, loss, scaler, scheduler, plan):
    with torch.autograd.graph.save_on_cpu():
        for window, tokens in windows(batches, plan):
            accumulate(model, optimizer, loss, scaler, plan, window, tokens)
            finish(model, optimizer, scaler, scheduler, plan)


def with_anomalies_detected(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        with torch.autograd.set_detect_anomaly(True, check_nan=False):
            accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        finish(model, optimizer, scaler, scheduler, plan)


def synchronized_at_the_last(model, optimizer, batches, loss, scaler, scheduler, plan):
    no_sync = getattr(model, "no_sync", contextlib.nullcontext)
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for index, batch in enumerate(window):
            with contextlib.nullcontext() if index == len(window) - 1 else no_sync():
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
        scaler.unscale_(optimizer)
        finish(model, optimizer, scaler, scheduler, plan)


def times_the_reciprocal(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) * (1.0 / tokens)
            scaler.scale(mean).backward()
        scaler.unscale_(optimizer)
        finish(model, optimizer, scaler, scheduler, plan)


def weighted_by_shares(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, tokens in windows(batches, plan):
        optimizer.zero_grad()
        for batch in window:
            share = plan.count(batch) / tokens
            with plan.autocast():
                mean = loss(model, batch) / plan.count(batch)
            (scaler.scale(mean) * share).backward()
        scaler.unscale_(optimizer)
        finish(model, optimizer, scaler, scheduler, plan)


def tokens_in_a_tensor(model, optimizer, batches, loss, scaler, scheduler, plan):
    for window, _ in windows(batches, plan):
        tokens = torch.stack([(batch.targets != -100).sum() for batch in window]).sum()
        accumulate(model, optimizer, loss, scaler, plan, window, tokens)
        finish(model, optimizer, scaler, scheduler, plan)


def counted_by_modulo(model, optimizer, batches, loss, scaler, scheduler, plan):
    k = plan.accumulation_steps
    for _ in range(plan.epochs):
        optimizer.zero_grad()
        for i, batch in enumerate(batches):
            tokens = sum(plan.count(b) for b in batches[i // k * k : i // k * k + k])
            with plan.autocast():
                mean = loss(model, batch) / tokens
            scaler.scale(mean).backward()
            if (i + 1) % k == 0 or i + 1 == len(batches):
                scaler.unscale_(optimizer)
                finish(model, optimizer, scaler, scheduler, plan)
                optimizer.zero_grad()


def pulled_from_an_iterator(model, optimizer, batches, loss, scaler, scheduler, plan):
    for _ in range(plan.epochs):
        stream = iter(batches)
        while window := list(itertools.islice(stream, plan.accumulation_steps)):
            accumulate(model, optimizer, loss, scaler, plan, window, sum(map(plan.count, window)))
            finish(model, optimizer, scaler, scheduler, plan)


RIGHT = [
    divided_by_foreach,
    by_a_given_gradient,
    into_given_inputs,
    several_losses_at_once,
    stacked_losses,
    added_in_place,
    by_functional_call,
    divided_in_a_hook,
    watched_by_hooks,
    with_a_checkpointed_layer,
    saved_elsewhere,
    with_anomalies_detected,
    synchronized_at_the_last,
    times_the_reciprocal,
    weighted_by_shares,
    tokens_in_a_tensor,
    counted_by_modulo,
    pulled_from_an_iterator,
]
