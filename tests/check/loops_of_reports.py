"""Loops of recent bug reports, written by hand in plain PyTorch: each has the fault that it is named after."""

import torch
import torch.nn.functional as F
from torch import nn

from loops import update, windows

IGNORED = -100


def tokens_of(plan, window):
    return sum(map(plan.count, window))


def rows_of(window):
    return sum(len(batch.targets) for batch in window)


def clip(model, optimizer, plan):
    nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)


def nothing(*_):
    pass


def trained(
    *,
    loss_of=None,
    count=tokens_of,
    ready=nothing,
    clipped=clip,
    stepped=nothing,
    first_epoch=lambda batches: batches,
    second_epoch=lambda batches: batches,
    between=nothing,
):
    """Return a loop of two epochs that does something else at one point."""

    def loop(model, optimizer, batches, loss, scaler, scheduler, plan):
        def step(window):
            optimizer.zero_grad()
            for batch in window:
                with plan.autocast():
                    mean = (loss_of or loss)(model, batch) / count(plan, window)
                scaler.scale(mean).backward()
            ready(model)
            scaler.unscale_(optimizer)
            clipped(model, optimizer, plan)
            update(optimizer, scaler, scheduler)
            stepped(model, optimizer)

        for window in windows(first_epoch(batches), plan):
            step(window)
        between(model, optimizer, scheduler, lambda: step(windows(batches, plan)[-1]))
        for window in windows(second_epoch(batches), plan):
            step(window)

    return loop


def logits_of(model, batch):
    return model(batch.inputs).float()


def summed(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum")


def shifted_twice(model, batch):
    return summed(logits_of(model, batch)[:, :-1], batch.targets[:, 1:])


def not_shifted(model, batch):
    return summed(logits_of(model, batch), batch.inputs.masked_fill(batch.targets == IGNORED, IGNORED))


def with_padding(model, batch):
    return summed(logits_of(model, batch), batch.targets.masked_fill(batch.targets == IGNORED, 0))


def without_ends(model, batch):
    targets = batch.targets.clone()
    for row in targets:
        row[int((row != IGNORED).sum()) - 1] = IGNORED
    return summed(logits_of(model, batch), targets)


def of_probabilities(model, batch):
    return summed(logits_of(model, batch).softmax(-1), batch.targets)


def of_sequences(model, batch):
    mask = batch.targets != IGNORED
    losses = F.cross_entropy(logits_of(model, batch).transpose(1, 2), batch.targets, reduction="none")
    return ((losses * mask).sum(-1) / mask.sum(-1)).sum()


def clip_by_mean(model, optimizer, plan):
    groups = [[p for p in group["params"] if p.grad is not None] for group in optimizer.param_groups]
    norms = [torch.stack([p.grad.norm() for p in group]).norm() for group in groups]
    factor = (plan.max_norm / (torch.stack(norms).mean() + 1e-6)).clamp(max=1)
    for group in groups:
        for p in group:
            p.grad.mul_(factor)


def in_bf16(model):
    for p in model.parameters():
        if p.grad is not None:
            p.grad = p.grad.to(torch.bfloat16).to(torch.float32)


def weights_to_bf16(model, _):
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(torch.bfloat16))


def moments_to_bf16(_, optimizer, *others):
    for state in optimizer.state.values():
        for name, value in state.items():
            state[name] = value if name == "step" else value.to(torch.bfloat16).to(torch.float32)


def first_learning_rate(_, optimizer, scheduler, step):
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * scheduler.lr_lambdas[0](0)


@torch.no_grad()
def average_again(model, *_):
    model.average.copy_(model.embedding.weight)


REPORTED = {
    "targets-shifted-twice": trained(loss_of=shifted_twice),
    "targets-not-shifted": trained(loss_of=not_shifted),
    "padding-trained-on": trained(
        loss_of=with_padding, count=lambda _, window: sum(batch.targets.numel() for batch in window)
    ),
    "end-of-sequence-masked": trained(
        loss_of=without_ends, count=lambda plan, window: tokens_of(plan, window) - rows_of(window)
    ),
    "softmax-before-the-loss": trained(loss_of=of_probabilities),
    "mean-of-sequence-means": trained(loss_of=of_sequences, count=lambda _, window: rows_of(window)),
    "first-token-of-each-sequence-counted": trained(
        count=lambda plan, window: tokens_of(plan, window) + rows_of(window)
    ),
    "clip-by-the-mean-of-group-norms": trained(clipped=clip_by_mean),
    "gradients-exchanged-in-half-precision": trained(ready=in_bf16),
    "weights-in-half-precision": trained(stepped=weights_to_bf16),
    "moments-in-half-precision": trained(stepped=moments_to_bf16),
    "moments-rounded-at-the-resume": trained(between=moments_to_bf16),
    "first-microbatch-consumed": trained(first_epoch=lambda batches: batches[1:]),
    "microbatch-repeated-after-the-resume": trained(second_epoch=lambda batches: [batches[-1], *batches]),
    "microbatch-lost-after-the-resume": trained(second_epoch=lambda batches: batches[1:]),
    "step-repeated-after-the-resume": trained(between=lambda model, optimizer, scheduler, step: step()),
    "reseeded-after-the-resume": trained(between=lambda *_: torch.manual_seed(0)),
    "first-learning-rate-again-after-the-resume": trained(between=first_learning_rate),
    "average-starts-anew-after-the-resume": trained(between=average_again),
}
