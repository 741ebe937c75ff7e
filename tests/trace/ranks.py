"""Loops on several ranks under ``gradparity.record``: what the tests of traces by rank make each rank do."""

import gc
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import AdamW

import gradparity


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 37), nn.GELU(), nn.Linear(37, 7))


def by_ddp(folder, steps=3, manual=False, other_batch=None, full=False):
    """``other_batch``: a rank whose third batch is another one."""
    wrapped = DistributedDataParallel(model())
    train(wrapped, folder, steps, manual, other_batch, full)


def by_hand(folder):
    """As DDP does it, after each backward."""
    alone = model()

    def exchanged():
        for p in alone.parameters():
            dist.all_reduce(p.grad)
            p.grad /= dist.get_world_size()

    train(alone, folder, 3, False, None, False, exchanged)


def by_fsdp(folder, full=False):
    """With a layer whose parameters are the root's."""
    sharded = model()
    fully_shard(sharded[0])
    fully_shard(sharded)
    train(sharded, folder, 3, False, None, full)


def train(wrapped, folder, steps, manual, other_batch, full, exchanged=lambda: None):
    parameters = list(wrapped.parameters())
    optimizer = AdamW(parameters, lr=0.01)
    stream = torch.Generator().manual_seed(dist.get_rank())
    with gradparity.record(wrapped, optimizer, folder, full=full) as where:
        assert where.name == f"rank{dist.get_rank()}"
        for step in range(steps):
            x = torch.randn(8, 20, generator=stream)
            loss = wrapped(-x if step == 2 and other_batch == dist.get_rank() else x).square().mean()
            if manual:
                for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    p.grad = g
            else:
                loss.backward()
                exchanged()
            nn.utils.clip_grad_norm_(parameters, 0.1)
            optimizer.step()
            optimizer.zero_grad()


def all_of_them(folder):
    """Every recording that the tests compare, in one launch."""
    by_ddp(folder / "ddp")
    by_ddp(folder / "again", full=True)
    by_ddp(folder / "manual", manual=True)
    by_hand(folder / "hand")
    by_ddp(folder / "other", other_batch=1, full=True)
    by_fsdp(folder / "fsdp")
    by_fsdp(folder / "fsdp, full", full=True)


def main():
    """Under torchrun."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    by_ddp(sys.argv[1])
    gc.collect()  # a DDP module that outlives its process group may abort the process at its exit
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
