"""Loops on several ranks, for the tests of ``gradparity check --nproc``."""

import os
import signal
import sys
import time
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def train(
    model,
    optimizer,
    batches,
    scaler,
    scheduler,
    plan,
    window_gradients,
    exchanged=lambda: None,
    clip=True,
):
    """Return a correct loop around the function that fills ``p.grad`` for a window."""
    for _ in range(plan.epochs):
        for start in range(0, len(batches), plan.accumulation_steps):
            window = batches[start : start + plan.accumulation_steps]
            optimizer.zero_grad()
            window_gradients(window)
            exchanged()
            scaler.unscale_(optimizer)
            if clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if scaler.get_scale() >= scale:
                scheduler.step()


def tokens_of_all(window, plan):
    tokens = torch.tensor(float(sum(plan.count(batch) for batch in window)))
    dist.all_reduce(tokens)
    return tokens / dist.get_world_size()


def tokens_of_mine(window, plan):
    return sum(plan.count(batch) for batch in window)


def ddp(model, optimizer, batches, loss, scaler, scheduler, plan, tokens=tokens_of_all, every=False, **more):
    wrapped = DistributedDataParallel(model)

    def window_gradients(window):
        count = tokens(window, plan)
        for batch in window:
            with nullcontext() if every or batch is window[-1] else wrapped.no_sync():
                with plan.autocast():
                    mean = loss(wrapped, batch) / count
                scaler.scale(mean).backward()

    train(model, optimizer, batches, scaler, scheduler, plan, window_gradients, **more)


def by_ddp(model, optimizer, batches, loss, scaler, scheduler, plan):
    ddp(model, optimizer, batches, loss, scaler, scheduler, plan)


def by_ddp_rounded(model, optimizer, batches, loss, scaler, scheduler, plan):
    ddp(model, optimizer, batches, lambda *given: loss(*given) / 3 * 3, scaler, scheduler, plan)


def by_ddp_without_no_sync(model, optimizer, batches, loss, scaler, scheduler, plan):
    ddp(model, optimizer, batches, loss, scaler, scheduler, plan, every=True)


def by_ddp_as_on_one_rank(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Two faults: it divides by its own tokens, and never calls ``no_sync``."""
    ddp(model, optimizer, batches, loss, scaler, scheduler, plan, tokens_of_mine, every=True)


def by_ddp_clipped_while_scaled(model, optimizer, batches, loss, scaler, scheduler, plan):
    def clipped():
        torch.nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)

    ddp(model, optimizer, batches, loss, scaler, scheduler, plan, exchanged=clipped, clip=False)


def autograd_grad_through_ddp(model, optimizer, batches, loss, scaler, scheduler, plan):
    wrapped = DistributedDataParallel(model)

    def window_gradients(window):
        count = tokens_of_all(window, plan)
        for batch in window:
            with plan.autocast():
                mean = loss(wrapped, batch) / count
            parameters = list(model.parameters())
            for p, g in zip(parameters, torch.autograd.grad(scaler.scale(mean), parameters), strict=True):
                p.grad = g.clone() if p.grad is None else p.grad + g

    train(model, optimizer, batches, scaler, scheduler, plan, window_gradients)


def hand(model, optimizer, batches, loss, scaler, scheduler, plan, exchanged=None, begin=True):
    """Without DDP: each gradient is exchanged by itself."""
    for tensor in (*model.parameters(), *model.buffers()) if begin else ():
        dist.broadcast(tensor.data, src=0)

    def window_gradients(window):
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
        count = tokens_of_all(window, plan)
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / count
            scaler.scale(mean).backward()

    train(
        model,
        optimizer,
        batches,
        scaler,
        scheduler,
        plan,
        window_gradients,
        exchanged or (lambda: mean_of(model)),
    )


def mean_of(model):
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


def by_hand(model, optimizer, batches, loss, scaler, scheduler, plan):
    hand(model, optimizer, batches, loss, scaler, scheduler, plan)


def by_hand_from_weights_of_its_own(model, optimizer, batches, loss, scaler, scheduler, plan):
    hand(model, optimizer, batches, loss, scaler, scheduler, plan, begin=False)


def alone(model, optimizer, batches, loss, scaler, scheduler, plan):
    """A loop for one rank."""

    def window_gradients(window):
        for batch in window:
            with plan.autocast():
                mean = loss(model, batch) / tokens_of_mine(window, plan)
            scaler.scale(mean).backward()

    train(model, optimizer, batches, scaler, scheduler, plan, window_gradients)


def rank_1_does_nothing(model, optimizer, batches, loss, scaler, scheduler, plan):
    if dist.get_rank() == 0:
        alone(model, optimizer, batches, loss, scaler, scheduler, plan)


def on_rank_1(then, model, optimizer, batches, loss, scaler, scheduler, plan):
    """Return the correct loop, except that rank 1 calls a function after some windows."""
    exchanges = []

    def exchanged():
        mean_of(model)
        exchanges.append(None)
        if dist.get_rank() == 1 and len(exchanges) == 3:
            then()

    hand(model, optimizer, batches, loss, scaler, scheduler, plan, exchanged)


def raises(model, optimizer, batches, loss, scaler, scheduler, plan):
    def then():
        raise ValueError("no such batch")

    on_rank_1(then, model, optimizer, batches, loss, scaler, scheduler, plan)


def exits(model, optimizer, batches, loss, scaler, scheduler, plan):
    on_rank_1(lambda: sys.exit(0), model, optimizer, batches, loss, scaler, scheduler, plan)


def kills_itself(model, optimizer, batches, loss, scaler, scheduler, plan):
    on_rank_1(lambda: os.kill(os.getpid(), signal.SIGKILL), model, optimizer, batches, loss, scaler, scheduler, plan)


def sleeps(model, optimizer, batches, loss, scaler, scheduler, plan):
    on_rank_1(lambda: time.sleep(600), model, optimizer, batches, loss, scaler, scheduler, plan)


def one_step_fewer(model, optimizer, batches, loss, scaler, scheduler, plan):
    fewer = batches[:-2] if dist.get_rank() == 1 else batches
    hand(model, optimizer, fewer, loss, scaler, scheduler, plan)


def another_order(model, optimizer, batches, loss, scaler, scheduler, plan):
    def exchanged():
        parameters = list(model.parameters())
        for p in parameters if dist.get_rank() == 0 else reversed(parameters):
            dist.all_reduce(p.grad)

    hand(model, optimizer, batches, loss, scaler, scheduler, plan, exchanged)


def all_sleep(model, optimizer, batches, loss, scaler, scheduler, plan):
    time.sleep(600)


def own_process_group(model, optimizer, batches, loss, scaler, scheduler, plan):
    dist.init_process_group("gloo")


def other_draws_each_time(model, optimizer, batches, loss, scaler, scheduler, plan):
    torch.manual_seed(time.time_ns() % 2**32)
    by_ddp(model, optimizer, batches, loss, scaler, scheduler, plan)


def keeps_its_losses(model, optimizer, batches, loss, scaler, scheduler, plan):
    kept = []

    def keeping(model, batch):
        kept.append(loss(model, batch))
        return kept[-1]

    ddp(model, optimizer, batches, keeping, scaler, scheduler, plan)
