"""Collectives between ranks: sum, broadcast, averages. They run on gloo and on NCCL, and need torch alone.

Every function here is *collective*: all ranks have to call it, in the same order, or all of them wait.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import GradBucket  # torch.distributed has it too, where type checkers miss it

Averaging: TypeAlias = Callable[[Tensor], None]
"""Replaces a flat tensor, in place, by its average over ranks."""

BUCKET = 25 * 2**20
"""Bytes of one exchange, as in DDP: fewer and larger ones cost less, several may start before the last is filled."""


def total(count: float) -> float:
    """Return the sum of ``count`` over ranks."""
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"  # NCCL knows GPUs only
    counts = torch.tensor(count, dtype=torch.float64, device=device)
    dist.all_reduce(counts)
    return float(counts)


def share(tensors: Iterator[Tensor]) -> None:
    """Give every rank the tensors of rank 0: a model's before the first step, its buffers before each step."""
    for tensor in tensors:
        dist.broadcast(tensor.detach(), src=0)


def all_reduced(flat: Tensor) -> None:
    """Average as DDP does: divided before it is summed, so that the sum of large gradients does not overflow.

    The backend chooses the order of the terms, and it changes along the tensor. Two ranks sum in one order only; with
    three or more, only a tensor of the same layout gives the same bits.
    """
    flat.mul_(1 / dist.get_world_size())
    dist.all_reduce(flat)


def in_rank_order(flat: Tensor) -> None:
    """Average by adding up rank 0, rank 1, ...: the same bits whatever the layout, at N times the memory."""
    parts = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, flat.mul_(1 / len(parts)))
    flat.copy_(parts[0])
    for part in parts[1:]:
        flat.add_(part)


def as_hook(averaging: Averaging) -> Callable[[Any, GradBucket], torch.futures.Future[Tensor]]:
    """Return ``averaging`` for ``DistributedDataParallel.register_comm_hook``, so that DDP sums in that order too."""

    def hook(_: Any, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        averaging(bucket.buffer())
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    return hook


def average(parameters: Sequence[nn.Parameter], averaging: Averaging = all_reduced) -> None:
    """Replace every gradient by its average over ranks, in the same bits as DDP.

    Args:
        parameters: in the same order on every rank; frozen ones are passed over, repeated ones count once. Their
            gradients are dense.
        averaging: called on each bucket.
    """
    trained = [p for p in dict.fromkeys(parameters) if p.requires_grad]
    if not trained:
        return
    # Without a gradient on this rank, but with one on another: it counts as zero here. Without any: it stays None.
    reached = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8, device=trained[0].device)
    dist.all_reduce(reached, dist.ReduceOp.MAX)
    for bucket in buckets([p for p, anywhere in zip(trained, reached.tolist(), strict=True) if anywhere]):
        for p in bucket:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in bucket if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        averaging(flat)
        for g, averaged in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            g.copy_(averaged.view_as(g))


def buckets(parameters: Sequence[nn.Parameter], size: int = BUCKET) -> Iterator[list[nn.Parameter]]:
    """Group neighbours of one dtype, up to ``size`` bytes of gradients; a larger one has a bucket of its own.

    >>> a, b, c = (nn.Parameter(torch.zeros(n)) for n in (2, 3, 4))
    >>> [[len(p) for p in bucket] for bucket in buckets([a, b, c], size=20)]
    [[2, 3], [4]]
    """
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and (p.dtype != bucket[0].dtype or sum(q.nbytes for q in bucket) + p.nbytes > size):
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket
