"""PyTorch's refusals, found by trying each operation once on a few numbers and quoting PyTorch's error.

Each function returns ``None`` if PyTorch runs the operation. A fixed list would be right for one release only.
"""

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.utils.checkpoint import checkpoint

from gradparity.processes.determinism import Device

Gradients: TypeAlias = Literal["dense", "matrices", "channels_last", "sparse"]
"""The kinds of gradients that an optimizer may refuse."""


def refused(attempt: Callable[[], object]) -> str | None:
    """Return the first sentence of PyTorch's refusal of ``attempt``, or ``None`` if it runs."""
    try:
        # The attempt leaves the global random state unchanged.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            attempt()
    except (RuntimeError, ValueError, TypeError) as error:
        first = str(error).strip().partition("\n")[0].partition(". ")[0]
        return f"{type(error).__name__}: {first.rstrip('.')}"
    return None


@cache
def a_step(optimizer: str, gradients: Gradients, device: Device = "cpu") -> str | None:
    """Return PyTorch's reason if ``optimizer``, as the matrix makes it, refuses a step with such ``gradients``."""

    def attempt() -> None:
        from gradparity.studies.matrix.cell import MatrixCell
        from gradparity.studies.matrix.two_runs import optimizer_of

        model, x = _model(gradients, device)
        made = optimizer_of(
            MatrixCell(task="sparse" if gradients == "sparse" else "digits_mlp", optimizer=optimizer), model
        )

        def closure() -> Tensor:
            made.zero_grad()
            loss: Tensor = model(x).square().sum()
            loss.backward()
            return loss

        closure()
        # Two steps: the second starts from the state that the first one made.
        for _ in range(2):
            made.step(cast(Any, closure) if optimizer == "LBFGS" else None)  # torch takes a tensor for a float

    return refused(attempt)


@cache
def a_clip(clip: str, device: Device = "cpu") -> str | None:
    """Return PyTorch's reason if ``clip`` refuses a sparse gradient."""

    def attempt() -> None:
        from gradparity.studies.matrix.two_runs import CLIPS

        model, x = _model("sparse", device)
        model(x).square().sum().backward()
        CLIPS[clip](list(model.parameters()))

    return refused(attempt)


@cache
def a_closure(device: Device = "cpu") -> str | None:
    """Return PyTorch's reason if an enabled ``GradScaler`` refuses the closure that LBFGS needs."""

    def attempt() -> None:
        model, x = _model("dense", device)
        scaler, optimizer = GradScaler(device), torch.optim.LBFGS(model.parameters())

        def closure() -> Tensor:
            loss: Tensor = model(x).square().sum()
            scaler.scale(loss).backward()
            return loss

        scaler.step(optimizer, closure=closure)

    return refused(attempt)


@cache
def a_late_gradient(optimizer: str, device: Device = "cpu") -> str | None:
    """Return PyTorch's reason if ``optimizer`` with momentum refuses a first gradient that comes later than others."""

    def attempt() -> None:
        name, _, implementation = optimizer.partition(" ")
        early, late = (nn.Parameter(torch.ones(2, device=device)) for _ in range(2))
        options = {implementation: True} if implementation else {}
        made = getattr(torch.optim, name)([early, late], lr=0.01, momentum=0.9, **options)
        for used in ([early], [early, late]):
            for p in used:
                p.grad = torch.ones_like(p)
            made.step()

    return refused(attempt)


@cache
def reentrant_grad() -> str | None:
    """Return PyTorch's reason if ``torch.autograd.grad`` refuses a graph with a reentrant checkpoint."""
    w = torch.ones(2, requires_grad=True)
    loss = checkpoint(torch.sin, w, use_reentrant=True).sum()
    return refused(partial(torch.autograd.grad, loss, [w]))


def _model(gradients: Gradients, device: Device) -> tuple[nn.Module, Tensor]:
    """Return a tiny model whose gradients are of that kind, and an input for it."""
    made: nn.Module
    match gradients:
        case "sparse":
            made, x = nn.Embedding(3, 2, sparse=True), torch.tensor([1, 1, 2])
        case "matrices":
            made, x = nn.Linear(3, 2, bias=False), torch.ones(2, 3)
        case "channels_last":
            made, x = channels_last_conv(), torch.ones(1, 3, 4, 4)
        case "dense":
            made, x = nn.Linear(3, 2), torch.ones(2, 3)
    return made.to(device), x.to(device)


def channels_last_conv() -> nn.Module:
    """Return a convolution whose filters are stored with the channels innermost."""
    return nn.Conv2d(3, 2, 2).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]  # as in tasks
