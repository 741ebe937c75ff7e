"""Loops that make the right updates; two of them keep the graphs of their losses or outputs."""

from torch import nn

from loops import example, update, windows


def adds_up_losses(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right, but the running total holds every graph of the epoch."""
    for _ in range(plan.epochs):
        total = 0.0
        for window in windows(batches, plan):
            optimizer.zero_grad()
            tokens = sum(map(plan.count, window))
            for batch in window:
                with plan.autocast():
                    mean = loss(model, batch) / tokens
                scaler.scale(mean).backward()
                total += mean
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            update(optimizer, scaler, scheduler)
        print("mean loss", float(total))


def keeps_outputs(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right, but a metric keeps the logits with their graphs."""
    logits = []
    handle = model.register_forward_hook(lambda module, inputs, output: logits.append(output))
    example(model, optimizer, batches, loss, scaler, scheduler, plan)
    handle.remove()


def adds_up_numbers(model, optimizer, batches, loss, scaler, scheduler, plan):
    """Right: it keeps each loss without its graph."""
    losses = []
    example(
        model, optimizer, batches, lambda *of: (losses.append((x := loss(*of)).detach()), x)[1], scaler, scheduler, plan
    )
