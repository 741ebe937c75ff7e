"""Loops on several ranks as somebody might have written them, for the tests of ``gradparity check --nproc``."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def by_ddp(model, optimizer, batches, loss, scaler, scheduler, plan):
    wrapped = DistributedDataParallel(model)
    for _ in range(plan.epochs):
        for start in range(0, len(batches), plan.accumulation_steps):
            window = batches[start : start + plan.accumulation_steps]
            tokens = torch.tensor(float(sum(plan.count(batch) for batch in window)))
            dist.all_reduce(tokens)
            optimizer.zero_grad()
            for batch in window[:-1]:
                with wrapped.no_sync(), plan.autocast():
                    mean = loss(wrapped, batch) / tokens * dist.get_world_size()
                    scaler.scale(mean).backward()
            with plan.autocast():
                mean = loss(wrapped, window[-1]) / tokens * dist.get_world_size()
            scaler.scale(mean).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), plan.max_norm)
            scale = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if scaler.get_scale() >= scale:
                scheduler.step()
