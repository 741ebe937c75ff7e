"""The summary of the claims: use ``.backward()`` for model training, because only it does the following.

Its claims about optimizers, AMP, DDP, schedulers, clipping and hooks are in ``tools``.
"""

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from gradparity.studies.claims import tools
from gradparity.studies.claims.evidence import ClaimVerdict, Evidence, judge, name_of
from gradparity.studies.claims.examples import (
    batch,
    count_filled,
    ending,
    error_message,
    lockstep_in_words,
    network,
    same_tensors,
    train_both_ways,
)
from gradparity.training import Route, backward, frugal, manual


def fills_grad() -> Evidence:
    """Only `.backward()` fills `param.grad` automatically."""
    model, x = network(), batch().detach()
    parameters = list(model.parameters())
    torch.autograd.grad(model(x).sum(), parameters)
    by_grad = count_filled(parameters)
    model(x).sum().backward()
    by_backward = count_filled(parameters)
    return Evidence(
        judge(holds=by_backward == len(parameters) and by_grad == 0),
        f".backward() fills {by_backward} of {len(parameters)}, autograd.grad {by_grad}.",
    )


def accumulates_correctly() -> Evidence:
    """Only `.backward()` accumulates gradients correctly."""

    def twice(route: Route) -> float:
        a, b = (nn.Parameter(torch.ones(2, 3)) for _ in range(2))
        for _ in range(2):
            route((a.flatten() + b.flatten()).square().sum(), [a, b])
        return float(a.grad[0, 0]) if a.grad is not None else 0.0

    right = 2 * 2 * (1 + 1)  # microbatches, times the derivative of a square at 1 + 1
    by_backward, by_hand = twice(backward), twice(manual)
    lockstep, _ = train_both_ways()
    return Evidence(
        judge(holds=by_backward == right and not (by_hand == right and lockstep.parity)),
        f"Between autograd.grad wired into p.grad and .backward(), {lockstep_in_words(lockstep)}. And where a and b "
        f"enter as a.flatten() + b.flatten(), two microbatches leave {by_hand:g} by hand and {by_backward:g} by "
        f".backward(); {right} is right (https://github.com/pytorch/pytorch/issues/34082).",
        "Either does, while no two .grad share memory; see gradparity.training.routes.",
    )


def most_gradients_held(model: nn.Module, x: Tensor, route: Route, microbatches: int) -> float:
    """Return the most bytes of new gradients alive at once, those kept as ``p.grad`` included, over parameter bytes."""
    parameters = list(model.parameters())
    made: list[tuple[StorageWeakRef, int]] = []
    most = 0

    def count(g: Tensor) -> None:
        nonlocal most
        made.append((StorageWeakRef(g.untyped_storage()), g.nbytes))
        most = max(most, sum(size for storage, size in made if not storage.expired()))

    handles = [p.register_hook(count) for p in parameters]
    for _ in range(microbatches):
        route(model(x).square().mean() / microbatches, parameters)
    for handle in handles:
        handle.remove()
    return most / sum(p.nbytes for p in parameters)


def millions_of_parameters() -> Evidence:
    """Only `.backward()` scales to large models with millions of parameters."""
    routes = (backward, manual, frugal)
    models = [network(hidden=512, layers=5).float() for _ in routes]
    x = batch(8).detach().float()
    count = sum(p.numel() for p in models[0].parameters())
    held = [most_gradients_held(model, x, route, 3) for model, route in zip(models, routes, strict=True)]
    ours, *theirs = ([p.grad for p in model.parameters()] for model in models)
    agree = all(same_tensors(ours, gradients) for gradients in theirs)
    return Evidence(
        judge(holds=not agree or held[2] > held[0]),
        f"With {count:,} parameters and 3 microbatches all routes leave {'the same' if agree else 'other'} bits. At "
        f"most {held[0]:.2f} sets of gradients are alive at once under .backward(), which adds each as it comes, "
        f"{held[1]:.2f} under autograd.grad, which returns all together, and {held[2]:.2f} where a hook on each "
        "parameter adds what autograd.grad has found.",
        "Both scale. With two microbatches or more, autograd.grad by itself holds one more set of gradients in memory; "
        "hooks that add them save it (gradparity.training.frugal).",
    )


def no_replacement() -> Evidence:
    """`torch.autograd.grad` is powerful and precise, but not a replacement for `.backward()` in training loops."""
    lockstep, _ = train_both_ways(precision="fp16")
    layer, x = network(), batch()
    leaves = list(layer.parameters())

    def by_checkpoint(reentrant: bool) -> str:
        return error_message(lambda: torch.autograd.grad(checkpoint(layer, x, use_reentrant=reentrant).sum(), leaves))

    refused, other = by_checkpoint(True), by_checkpoint(False)
    needed = [name_of(tool) for tool in (tools.ddp, tools.hooks) if tool().verdict is not ClaimVerdict.FAILS]
    return Evidence(
        judge(holds=not lockstep.parity or bool(refused or needed), caveat=lockstep.parity),
        f"Wired into p.grad with care, it trains alike in fp16 with clipping and a schedule: "
        f"{lockstep_in_words(lockstep)}. But {len(needed)} of the parts above need .backward() in whole or in part: "
        f"{', '.join(needed)}. And under reentrant checkpointing autograd.grad {ending(refused)}; under the other kind "
        f"it {ending(other)}.",
        "In a plain loop it is a replacement, if wired as in gradparity.training.manual; not under DDP, reentrant "
        "checkpointing, or with hooks that wait for accumulation.",
    )
