"""Measurements of FSDP2: each part of the manual route is tried on sharded parameters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW

from gradparity.parity.bits import same_bits, ulp_distance
from gradparity.parity.metrics import Figures
from gradparity.parity.mismatches import figures_of
from gradparity.studies.distributed.compare_ranks import gathered
from gradparity.training import backward
from gradparity.training.collectives import average
from gradparity.training.sharded import accumulate, scatter, whole_parameters

STEPS, MICROBATCHES = 3, 2


@dataclass(frozen=True)
class ShardedPart:
    """A part of the manual route, and its result on this rank."""

    what: str
    works: bool
    seen: str
    """The result in words: the bits, or the error."""


def measure_sharded() -> list[ShardedPart]:
    """Measure every part on this rank. Collective."""
    return [
        _backward(),
        _by_shards(),
        _by_shards_unused(),
        _into_shards(),
        _by_whole(),
        _by_hand(),
        _clip(),
        _clip_local(),
        _overflow(),
    ]


def _backward() -> ShardedPart:
    shards, gradients = _gradients_of_one_backward()
    found = figures_of(zip(gradients, (g.full_tensor() for g in shards), strict=True))
    return ShardedPart(".backward()", *_same("DDP's", found))


def _by_shards() -> ShardedPart:
    model, what = sharded(), "autograd.grad by the shards that the optimizer has"
    try:
        torch.autograd.grad(loss_of(model, next(inputs())), list(model.parameters()))
    except RuntimeError as error:
        return ShardedPart(what, False, f"RuntimeError: {str(error).split('.')[0]}")
    return ShardedPart(what, True, "gradients")


def _by_shards_unused() -> ShardedPart:
    model = sharded()
    found = torch.autograd.grad(loss_of(model, next(inputs())), list(model.parameters()), allow_unused=True)
    nothing = all(g is None for g in found)
    return ShardedPart("the same with allow_unused=True", not nothing, "None for all, silently" if nothing else "some")


def _into_shards() -> ShardedPart:
    model = sharded()
    loss_of(model, next(inputs())).backward(inputs=list(model.parameters()))
    nothing = all(p.grad is None for p in model.parameters())
    return ShardedPart(".backward(inputs=shards)", not nothing, "None for all, silently" if nothing else "some")


def _by_whole() -> ShardedPart:
    model, gradients = sharded(), dict[str, Tensor]()
    with whole_parameters(model) as seen:
        accumulate(loss_of(model, next(inputs())), seen, gradients)
    alone, x = build_mlp(), next(inputs())
    own = torch.autograd.grad(loss_of(alone, x), list(alone.parameters()))
    same = all(same_bits(g, o) for g, o in zip(gradients.values(), own, strict=True))
    what = "autograd.grad by the whole parameters of the forward"
    return ShardedPart(what, False, "this rank's own gradients, not averaged" if same else "other gradients")


def _by_hand() -> ShardedPart:
    """Compare FSDP's own route with the manual one: three clipped AdamW steps of two microbatches."""
    models = sharded(), sharded()
    optimizers = [AdamW(model.parameters(), lr=0.01) for model in models]
    batches, pairs = inputs(), list[tuple[Tensor, Tensor]]()
    for _ in range(STEPS):
        window = [next(batches) for _ in range(MICROBATCHES)]
        _fill(models[0], window)
        gradients: dict[str, Tensor] = {}
        for x in window:
            with whole_parameters(models[1]) as seen:
                accumulate(loss_of(models[1], x), seen, gradients)
        scatter(models[1], gradients)
        for model, optimizer in zip(models, optimizers, strict=True):
            clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        for p, q in zip(models[0].parameters(), models[1].parameters(), strict=True):
            pairs += [(whole_tensor(p), whole_tensor(q)), (whole_tensor(p.grad), whole_tensor(q.grad))]
    what = "the same, added up, then averaged and scattered by hand"
    return ShardedPart(what, *_same("FSDP's own", figures_of(pairs)))


def _same(whose: str, found: Figures) -> tuple[bool, str]:
    if not found.differing:
        return True, f"{whose} bits, in {found.elements:,} numbers"
    return (
        False,
        f"{whose} up to rounding: {found.differing:,} of {found.elements:,}, relative {found.relative_norm:.0e}",
    )


def _clip() -> ShardedPart:
    shards, gradients = _gradients_of_one_backward()
    norm, expected = (nn.utils.get_total_norm(g) for g in (shards, gradients))
    assert isinstance(norm, DTensor)
    ulp = int(ulp_distance(norm.full_tensor(), expected))
    alike = len(set(gathered(float(norm.full_tensor())))) == 1
    seen = f"one norm on all ranks, {ulp} ULP from that of the whole gradients"
    return ShardedPart("clip_grad_norm_ on the shards' gradients", alike and ulp <= 4, seen if alike else "other norms")


def _clip_local() -> ShardedPart:
    shards, _ = _gradients_of_one_backward()
    norms = gathered(float(nn.utils.get_total_norm([g.to_local() for g in shards])))
    seen = f"a different norm on each rank: {', '.join(f'{norm:.4g}' for norm in norms)}"
    return ShardedPart("clip_grad_norm_ on to_local() of them", len(set(norms)) == 1, seen)


def _overflow() -> ShardedPart:
    model = sharded()
    optimizer, scaler = SGD(model.parameters(), lr=0.1), GradScaler("cpu", init_scale=4.0)
    backward(scaler.scale(loss_of(model, next(inputs()))), [])
    first = next(model.parameters())
    if dist.get_rank() == dist.get_world_size() - 1:
        _local_shard(first.grad).fill_(torch.inf)
    before = _local_shard(first).clone()
    scaler.step(optimizer)
    scaler.update()
    decisions = set(gathered((scaler.get_scale(), same_bits(before, _local_shard(first)))))
    seen = "all ranks skip the step, and halve the scale" if decisions == {(2.0, True)} else f"{decisions}"
    return ShardedPart("GradScaler, an inf in the shard of one rank", decisions == {(2.0, True)}, seen)


def _gradients_of_one_backward() -> tuple[list[DTensor], list[Tensor]]:
    """Return the gradients of FSDP, and those of an unsharded model averaged as DDP does."""
    model, alone, x = sharded(), build_mlp(), next(inputs())
    backward(loss_of(model, x), [])
    backward(loss_of(alone, x), [])
    average(list(alone.parameters()))
    shards = [p.grad for p in model.parameters() if isinstance(p.grad, DTensor)]
    return shards, [p.grad for p in alone.parameters() if p.grad is not None]


def _fill(model: nn.Module, window: Sequence[Tensor]) -> None:
    """Compute the gradients of a window by FSDP's own synchronization."""
    assert isinstance(model, FSDPModule)
    model.zero_grad()
    for index, x in enumerate(window):
        model.set_requires_gradient_sync(index + 1 == len(window))
        backward(loss_of(model, x), [])


def build_mlp() -> nn.Sequential:
    """Build a multilayer perceptron of odd sizes, so that shards are uneven; the same on every rank."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 37), nn.GELU(), nn.Linear(37, 31), nn.GELU(), nn.Linear(31, 7))


def sharded() -> nn.Module:
    """Build the same model with each layer sharded over all ranks."""
    model, mesh = build_mlp(), init_device_mesh("cpu", (dist.get_world_size(),))
    for module in (*(layer for layer in model if isinstance(layer, nn.Linear)), model):
        fully_shard(module, mesh=mesh)
    return model


def inputs() -> Iterator[Tensor]:
    """Yield random inputs ``[8, 20]`` without end, different on each rank."""
    stream = torch.Generator().manual_seed(dist.get_rank())
    while True:
        yield torch.randn(8, 20, generator=stream)


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return the loss, a scalar."""
    loss: Tensor = model(x).square().sum()
    return loss


def whole_tensor(tensor: Tensor | None) -> Tensor:
    """Return a copy of the whole tensor, gathered from all shards. Collective."""
    assert isinstance(tensor, DTensor)
    return tensor.full_tensor().clone()


def _local_shard(tensor: Tensor | None) -> Tensor:
    """Return this rank's shard."""
    assert isinstance(tensor, DTensor)
    return tensor.to_local()
