"""Functions for ranks in the tests of ``launch``, in a module that ranks can import."""

import os
import signal
import time

import torch
import torch.distributed as dist
from torch import nn

from gradparity.check.lookup.fault_lookup_on_ranks import guarded_reference
from gradparity.faults import FAULTS
from gradparity.processes.collective_guard import CollectiveGuard, RanksPartedError
from gradparity.training import collectives


def sums(start):
    numbers = torch.tensor([start + dist.get_rank()])
    dist.all_reduce(numbers)
    return dist.get_rank(), int(numbers), torch.get_num_threads()


def exchanges(steps_of_rank):
    for _ in range(steps_of_rank[dist.get_rank()]):
        dist.all_reduce(torch.zeros(1))
    return "done"


def dies(how):
    dist.all_reduce(torch.zeros(1))
    if dist.get_rank() == 1:
        os._exit(3) if how == "exit" else os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.zeros(1))


def raises():
    dist.all_reduce(torch.zeros(1))
    if dist.get_rank() == 1:
        raise ValueError("no such\nbatch")
    dist.all_reduce(torch.zeros(1))


def hangs():
    dist.all_reduce(torch.zeros(1))
    if dist.get_rank() == 1:
        time.sleep(600)
    dist.all_reduce(torch.zeros(1))


def all_sleep():
    time.sleep(600)


def other_collectives():
    if dist.get_rank() == 0:
        dist.recv(torch.zeros(1), src=1)
    else:
        dist.recv(torch.zeros(1), src=0)


def averages(in_order):
    """Average gradients with known averages: full, on rank 1 alone, nowhere, frozen, in another dtype, transposed."""
    rank = dist.get_rank()
    full, one, nowhere, frozen = (nn.Parameter(torch.zeros(2), requires_grad=i < 3) for i in range(4))
    double, turned = nn.Parameter(torch.zeros(2, dtype=torch.float64)), nn.Parameter(torch.zeros(2, 3).t())
    full.grad = torch.full((2,), rank + 1.0)
    one.grad = torch.full((2,), 4.0) if rank == 1 else None
    frozen.grad = torch.full((2,), float(rank))
    double.grad = torch.full((2,), rank + 0.5, dtype=torch.float64)
    turned.grad = torch.arange(6.0).view(2, 3).t() * (rank + 1)
    parameters = [full, one, nowhere, frozen, full, double, turned]
    collectives.average(parameters, collectives.in_rank_order if in_order else collectives.all_reduced)
    strides = turned.grad.stride()
    gradients = [p.grad if p.grad is None else p.grad.tolist() for p in (full, one, nowhere, frozen, double, turned)]
    return gradients, strides, collectives.total(rank + 1)


def differ_from_the_reference(names):
    """Return the faults of one rank that this rank observes on several."""
    watch = guarded_reference(CollectiveGuard())
    reference, *others = (
        watch(faults, "fp16", lambda *_: True) for faults in ([], *([FAULTS[name]] for name in names))
    )
    return [name for name, seen in zip(names, others, strict=True) if seen != reference]


def parts(how):
    """Let rank 1 leave a run; return whether this rank was stopped, and the sum of the next run."""
    guard, names = CollectiveGuard(), {}
    guard.guard(names)
    stopped = False
    try:
        names["total"](1)
        if dist.get_rank() == 0 or how == "never":
            names["total"](1)
        elif how == "does another exchange":
            names["share"](iter([torch.zeros(1)]))
    except RanksPartedError:
        stopped = True
    guard.end_run()
    total = names["total"](dist.get_rank() + 1)
    guard.end_run()
    return stopped, total
