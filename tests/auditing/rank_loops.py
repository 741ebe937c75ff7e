"""Small loops on two ranks: for each rule on ranks one that breaks it, and its repair."""

import gc
import shutil
from contextlib import nullcontext

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import gradparity
from gradparity.auditing.watching.watch import Watch

STEPS = 4
IGNORE = -100


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def ddp():
    model = DistributedDataParallel(network())
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def batches(count=STEPS, seed=None):
    stream = torch.Generator().manual_seed(dist.get_rank() if seed is None else seed)
    for _ in range(count):
        yield torch.randn(6, 4, generator=stream), torch.randint(0, 3, (6,), generator=stream)


def exchange(model):
    for p in model.parameters():
        dist.all_reduce(p.grad)
        p.grad /= dist.get_world_size()


def under_ddp(right):
    """A right loop, or one that calls the module inside DDP."""
    model, optimizer = ddp()
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x) if right else model.module(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()


def last_microbatch_without_an_exchange(right):
    model, optimizer = ddp()
    for i, (x, y) in enumerate(batches(12)):
        last = (i + 1) % 3 == 0
        with nullcontext() if last == right else model.no_sync():
            (F.cross_entropy(model(x), y) / 3).backward()
        if last:
            optimizer.step()
            optimizer.zero_grad()


def layer_thawed_after_ddp(right):
    inner = network()
    inner[0].requires_grad_(right)
    model = DistributedDataParallel(inner)
    inner[0].requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def other_gradients_on_rank_1(right):
    """As a framework that removes its DDP at the end."""
    inner = network()
    model = DistributedDataParallel(inner)
    optimizer = torch.optim.SGD(inner.parameters(), lr=0.1)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if not right and dist.get_rank() == 1:
            for p in inner.parameters():
                p.grad *= 2
        optimizer.step()
    del model
    gc.collect()
    return optimizer  # it is alive when the watch looks for the last time, and DDP is not


def by_hand(right):
    """A layer that the exchange leaves out."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        exchange(model if right else model[0])
        optimizer.step()


def never_exchanged(right):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if right:
            exchange(model)
        optimizer.step()


def exchanged_at_every_microbatch(right):
    model, optimizer = ddp()
    for i, (x, y) in enumerate(batches(12)):
        last = (i + 1) % 3 == 0
        with model.no_sync() if right and not last else nullcontext():
            (F.cross_entropy(model(x), y) / 3).backward()
        if last:
            optimizer.step()
            optimizer.zero_grad()


def mean_of_means(right):
    model, optimizer = ddp()
    for x, y in batches():
        y[: 1 + 3 * dist.get_rank()] = IGNORE
        tokens = (y != IGNORE).sum()
        loss = F.cross_entropy(model(x), y, reduction="sum")
        if right:
            dist.all_reduce(tokens)
            loss = loss * dist.get_world_size()
        optimizer.zero_grad()
        (loss / tokens).backward()
        optimizer.step()


def clipped_before_the_exchange(right):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if not right:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        exchange(model)
        if right:
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()


def same_batch(right):
    model, optimizer = ddp()
    for x, y in batches(seed=None if right else 0):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def other_weights(right):
    model = network(0 if right else dist.get_rank())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        exchange(model)
        optimizer.step()


def loaded_on_rank_0_only(right):
    model, optimizer = ddp()
    if right or dist.get_rank() == 0:
        model.module.load_state_dict(network(5).state_dict())
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def order_repeats(right):
    stream = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(16, 4, generator=stream), torch.randint(0, 3, (16,), generator=stream))
    sampler, other = DistributedSampler(data), DistributedSampler(data)
    model, optimizer = ddp()
    for epoch in range(3):
        if right:
            sampler.set_epoch(epoch)
        for x, y in DataLoader(data, 4, sampler=sampler):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            for x, _ in DataLoader(data, 4, sampler=other):  # a validation may repeat its order
                model(x)


def only_rank_0_steps(right):
    model, optimizer = ddp()
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        if right or dist.get_rank() == 0:
            optimizer.step()


def a_training_on_each_rank():
    model = network(dist.get_rank())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * (1 + dist.get_rank()))
    for x, y in batches(seed=0):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def rank_0_steps_for_all():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        exchange(model)
        if dist.get_rank() == 0:
            optimizer.step()
        for p in model.parameters():
            dist.broadcast(p.data, src=0)


def sharded():
    from torch.distributed.fsdp import fully_shard

    model = network()
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()


def states_sharded():
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(network())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.01)
    for x, y in batches():
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def accumulated_and_then_exchanged_by_hand():
    model, optimizer = ddp()
    for i, (x, y) in enumerate(batches(12)):
        with model.no_sync():
            (F.cross_entropy(model(x), y) / 3).backward()
        if (i + 1) % 3 == 0:
            exchange(model)
            optimizer.step()
            optimizer.zero_grad()


def generator_and_critic():
    """The critic gets gradients twice a step, and is emptied in between."""
    generator, critic = (DistributedDataParallel(net) for net in (nn.Linear(2, 4), nn.Linear(4, 1)))
    of_generator, of_critic = (torch.optim.Adam(net.parameters(), 0.01) for net in (generator, critic))
    torch.manual_seed(dist.get_rank())
    for x, _ in batches():
        noise = torch.randn(6, 2)
        of_critic.zero_grad()
        (F.softplus(-critic(x)) + F.softplus(critic(generator(noise).detach()))).mean().backward()
        of_critic.step()
        of_generator.zero_grad()
        F.softplus(-critic(generator(noise))).mean().backward()
        of_generator.step()


def sharpness_aware():
    """The ranks perturb the weights by their own gradients, and step on the mean."""
    model, optimizer = ddp()
    for x, y in batches():
        with model.no_sync():
            F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            before = [p.clone() for p in model.parameters()]
            for p in model.parameters():
                p.add_(0.05 * p.grad)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        with torch.no_grad():
            for p, old in zip(model.parameters(), before, strict=True):
                p.copy_(old)
        optimizer.step()
        optimizer.zero_grad()


def scaled():
    model, optimizer = ddp()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    for x, y in batches(8):
        with torch.autocast("cpu", dtype=torch.float16):
            loss = F.cross_entropy(model(x).float(), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer)
        scaler.update()


BROKEN = {
    under_ddp: ("GP751", "wrong"),
    last_microbatch_without_an_exchange: ("GP751", "wrong"),
    layer_thawed_after_ddp: ("GP751", "wrong"),
    other_gradients_on_rank_1: ("GP751", "wrong"),
    by_hand: ("GP751", "unusual"),
    never_exchanged: ("GP751", "unusual"),
    exchanged_at_every_microbatch: ("GP752", "unusual"),
    mean_of_means: ("GP753", "wrong"),
    clipped_before_the_exchange: ("GP754", "unusual"),
    same_batch: ("GP755", "unusual"),
    other_weights: ("GP756", "wrong"),
    loaded_on_rank_0_only: ("GP756", "wrong"),
    order_repeats: ("GP757", "unusual"),
    only_rank_0_steps: ("GP758", "wrong"),
}
"""For each loop, the rule that its wrong form breaks, and the verdict."""

RIGHT = (
    a_training_on_each_rank,
    rank_0_steps_for_all,
    sharded,
    states_sharded,
    accumulated_and_then_exchanged_by_hand,
    generator_and_critic,
    sharpness_aware,
    scaled,
)
"""Loops that are right, and look like wrong ones."""


def facts_of(loop, *arguments):
    """Run a loop under a watch on this rank; return its facts."""
    watch = Watch(100)
    with watch.watching():
        left = loop(*arguments)
    assert watch.fault is None, watch.fault
    shutil.rmtree(watch.ranks.own.folder, ignore_errors=True)
    facts = watch.facts()
    del left
    return facts


def facts_of_every_loop():
    """Run every loop on this rank; return their facts by name and form."""
    found = {(loop.__name__, right): facts_of(loop, right) for loop in BROKEN for right in (True, False)}
    return found | {(loop.__name__, True): facts_of(loop) for loop in RIGHT}


def bits_of(loop, watched):
    """Return everything that a loop on this rank leaves, with a watch or without one."""
    kept = []
    torch.manual_seed(1)
    step = torch.optim.SGD.step

    def stepped(self, *arguments):
        step(self, *arguments)
        kept.extend(p.detach().clone() for group in self.param_groups for p in group["params"])

    torch.optim.SGD.step = stepped
    try:
        facts_of(loop, *[True] * (loop in BROKEN)) if watched else loop(*[True] * (loop in BROKEN))
    finally:
        torch.optim.SGD.step = step
    return [*kept, torch.get_rng_state()]


def the_same_bits():
    """Return the loops whose bits change when they are watched, and the number of tensors that were compared."""
    apart, compared = [], 0
    for loop in (scaled, sharded, accumulated_and_then_exchanged_by_hand, by_hand, order_repeats):
        one, other = ([_whole(t) for t in bits_of(loop, watched)] for watched in (True, False))
        compared += len(one)
        if len(one) != len(other) or not all(map(torch.equal, one, other)):
            apart.append(loop.__name__)
    return apart, compared


def _whole(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def audited_inside(right):
    """Audit two loops, one after the other, and return the verdict of each."""
    found = []
    for loop in (mean_of_means, under_ddp):
        with gradparity.audit() as audit:
            loop(right)
        found.append(([f.rule.code for f in audit.report.findings], len(audit.report.notes)))
        dist.barrier()
    return found


def audited_on_rank_0_only():
    """Return the notes of an audit that rank 1 does not have."""
    with gradparity.audit() if dist.get_rank() == 0 else nullcontext() as audit:
        under_ddp(True)
    dist.barrier()
    return audit and audit.report.notes
