"""Six parts of PyTorch that, it is claimed, only ``.backward()`` supports, each tried with both routes."""

from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge, register_multi_grad_hook
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from gradparity.parity.bits import same_bits
from gradparity.studies.claims.evidence import Evidence, judge
from gradparity.studies.claims.examples import (
    ALL_OPTIMIZERS,
    batch,
    error_message,
    lockstep_in_words,
    network,
    train_both_ways,
    trained_by,
)
from gradparity.studies.train_two_ways.config import ClipConfig
from gradparity.training import backward, manual


def optimizers() -> Evidence:
    """Only `.backward()` integrates with optimizers."""
    trained = {kind: [trained_by(kind, route) for route in (backward, manual)] for kind in ALL_OPTIMIZERS}
    agree = sum(same_bits(ours, theirs) for (_, ours), (_, theirs) in trained.values())
    moved = sum(not torch.equal(before, after) for (before, after), _ in trained.values())
    return Evidence(
        judge(holds=not (agree == moved == len(ALL_OPTIMIZERS))),
        f"Of the {len(ALL_OPTIMIZERS)} optimizers of torch.optim {agree} arrive at the same bits by autograd.grad "
        f"wired into p.grad, after 3 steps of 2 microbatches; {moved} moved their parameters.",
        "An optimizer reads p.grad, however it was filled.",
    )


def amp() -> Evidence:
    """Only `.backward()` supports AMP."""
    lockstep, steps = train_both_ways(precision="fp16")
    skipped = sum(step.skipped for step in steps)
    return Evidence(
        judge(holds=not (lockstep.parity and 0 < skipped < len(steps))),
        f"Under fp16 autocast with a GradScaler, {lockstep_in_words(lockstep)}; "
        f"{skipped} of the {len(steps)} overflowed, to be skipped by both routes.",
        "Differentiate scaler.scale(loss) by either; unscale_, step and update read p.grad.",
    )


def ddp() -> Evidence:
    """Only `.backward()` supports DDP."""
    reductions = list[int]()

    def reduce(
        state: None,
        bucket: dist.GradBucket,  # type: ignore[name-defined]  # DDP requires this annotation, which mypy cannot see
    ) -> torch.futures.Future[Tensor]:
        reductions.append(1)
        return allreduce_hook(model.process_group, bucket)

    with TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            model, x = DistributedDataParallel(network()), batch().detach()
            model.register_comm_hook(None, reduce)
            model(x).sum().backward()
            by_backward = len(reductions)
            torch.autograd.grad(model(x).sum(), list(model.parameters()))
            by_grad = len(reductions) - by_backward
        finally:
            dist.destroy_process_group()
    return Evidence(
        judge(holds=by_backward > 0 and by_grad == 0),
        f"Of DDP's all-reduces, counted in one process by a communication hook, {by_backward} took place under "
        f".backward() and {by_grad} under autograd.grad, which raised nothing.",
        "With autograd.grad, all-reduce the gradients yourself, or each process trains alone.",
    )


def schedulers() -> Evidence:
    """Only `.backward()` supports schedulers."""
    lockstep, steps = train_both_ways()
    rates = len({step.lr for step in steps})
    return Evidence(
        judge(holds=not (lockstep.parity and rates > 1)),
        f"With {rates} different learning rates, {lockstep_in_words(lockstep)}.",
        "A scheduler reads no gradient at all.",
    )


def clipping() -> Evidence:
    """Only `.backward()` supports clipping."""
    parity, sentences = True, []
    for clip in (ClipConfig(by="norm", threshold=0.05), ClipConfig(by="value", threshold=0.001)):
        lockstep, steps = train_both_ways(clip=clip)
        clipped = sum(step.clipped_norm < step.norm for step in steps)
        parity &= lockstep.parity and clipped == len(steps)
        sentences.append(f"by {clip.by}, {lockstep_in_words(lockstep)}, {clipped} of which it clipped")
    return Evidence(
        judge(holds=not parity),
        f"With clipping {'; '.join(sentences)}.",
        "Clipping changes p.grad in place, however it was filled; p.grad must share no memory.",
    )


HOOKS: dict[str, Callable[[Sequence[nn.Parameter], Tensor, nn.Module, Callable[..., None]], object]] = {
    "Tensor, a leaf": lambda leaves, hidden, layer, hook: leaves[0].register_hook(hook),
    "Tensor, not a leaf": lambda leaves, hidden, layer, hook: hidden.register_hook(hook),
    "module, full backward": lambda leaves, hidden, layer, hook: layer.register_full_backward_hook(hook),
    "post-accumulate": lambda leaves, hidden, layer, hook: leaves[0].register_post_accumulate_grad_hook(hook),
    "AccumulateGrad node": lambda leaves, hidden, layer, hook: get_gradient_edge(leaves[0]).node.register_hook(hook),
    "multi-grad, of leaves": lambda leaves, hidden, layer, hook: register_multi_grad_hook(leaves, hook),
}
"""Functions that register each kind of hook on the parameters, the first layer's output, or the last layer."""


def runs_of(kind: str, differentiate: Callable[[Tensor, Sequence[nn.Parameter]], object]) -> int | str:
    """Count the runs of a hook while ``differentiate`` is called; ``"raises"`` if that raises."""
    calls = list[int]()
    model, x = network(), batch().detach()
    first, activation, last = model
    hidden, leaves = first(x), list(model.parameters())
    HOOKS[kind](leaves, hidden, last, lambda *gradients: calls.append(1))
    loss = last(activation(hidden)).sum()
    refused = error_message(lambda: differentiate(loss, leaves))
    return "raises" if refused else len(calls)


def hooks() -> Evidence:
    """Only `.backward()` supports hooks."""
    ways: list[Callable[[Any, Any], object]] = [
        backward,
        lambda loss, leaves: loss.backward(inputs=leaves),
        lambda loss, leaves: torch.autograd.grad(loss, leaves),
    ]
    runs = {kind: [runs_of(kind, way) for way in ways] for kind in HOOKS}
    only = [kind for kind, (by_backward, _, by_grad) in runs.items() if by_backward == 1 != by_grad]
    either = [kind for kind, (by_backward, _, by_grad) in runs.items() if by_backward == 1 == by_grad]
    table = [f"{kind}: {', '.join(map(str, counts))}" for kind, counts in runs.items()]
    return Evidence(
        judge(holds=bool(only), caveat=bool(either)),
        f"{len(only)} of {len(runs)} kinds run under .backward() alone. Runs under .backward(), "
        ".backward(inputs=leaves), autograd.grad:\n" + "\n".join(table),
        "Hooks on tensors and modules run under both. Those that wait for accumulation into a leaf need .backward().",
    )
