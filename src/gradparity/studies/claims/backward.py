"""Five reasons often given for ``.backward()`` in training."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradparity.studies.claims import tools
from gradparity.studies.claims.evidence import ClaimVerdict, Evidence, judge, name_of
from gradparity.studies.claims.examples import (
    ALL_OPTIMIZERS,
    batch,
    count_filled,
    ending,
    error_message,
    factor_over,
    network,
    trained_by,
)
from gradparity.training import Route, backward


def optimizers_read_grad() -> Evidence:
    """Optimizers expect gradients to be in `param.grad`; `torch.autograd.grad` does NOT fill `param.grad`.

    You would have to assign every gradient manually. This is error-prone and completely unnecessary.
    """

    def grad_alone(loss: Tensor, leaves: Sequence[nn.Parameter]) -> None:
        torch.autograd.grad(loss, leaves)

    def moved_by(route: Route) -> int:
        return sum(not torch.equal(*trained_by(kind, route)) for kind in ALL_OPTIMIZERS)

    moved, alone = moved_by(backward), moved_by(grad_alone)
    a, b, c = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True), torch.ones(3)
    for _ in range(2):
        for p, g in zip((a, b), torch.autograd.grad(((a + b) * c).sum(), (a, b)), strict=True):
            p.grad = g if p.grad is None else p.grad.add_(g)
    wired = factor_over(b.grad, c)
    return Evidence(
        judge(holds=moved == len(ALL_OPTIMIZERS) and alone == 0, caveat=wired == 2),
        f"Of the {len(ALL_OPTIMIZERS)} optimizers of torch.optim {moved} move their parameters after .backward(), and "
        f"{alone} after autograd.grad alone. Wired by hand with p.grad = g and then p.grad.add_(g), two microbatches "
        f"of (a + b) * c leave {wired:g} times b's gradient, since a and b got one tensor.",
    )


def all_parameters() -> Evidence:
    """`.backward()` handles ALL parameters automatically.

    `grads = torch.autograd.grad(loss, model.parameters())`, `for p, g in zip(model.parameters(), grads): p.grad = g`:
    `.backward()` does this wiring for you.
    """
    model, x = network(), batch()
    parameters = list(model.parameters())

    def wire(used: nn.Module = model) -> None:
        grads = torch.autograd.grad(used(x).sum(), parameters)
        for p, g in zip(parameters, grads, strict=True):
            p.grad = g

    (once,) = torch.autograd.grad(model(x).sum(), parameters[0])
    for _ in range(2):
        wire()
    wired = factor_over(parameters[0].grad, once)
    model.zero_grad()
    for _ in range(2):
        model(x).sum().backward()
    added, count = factor_over(parameters[0].grad, once), count_filled(parameters)
    unused = error_message(partial(wire, model[0]))
    parameters[0].requires_grad_(False)
    frozen = error_message(wire)
    return Evidence(
        judge(holds=count == len(parameters) and added == 2, caveat=wired != added or bool(unused) or bool(frozen)),
        f".backward() fills {count} of {len(parameters)}, and does more than this wiring: after two microbatches it "
        f"leaves {added:g} times the gradient, the wiring {wired:g} times. With an unused parameter the wiring "
        f"{ending(unused)}, with a frozen one it {ending(frozen)}.",
        "By hand: pass over frozen parameters, set allow_unused=True, skip None, add to what is there, copy what is "
        "shared (gradparity.training.manual).",
    )


def accumulation() -> Evidence:
    """`.backward()` supports gradient accumulation: `loss.backward()`, `loss.backward()  # adds again`.

    `autograd.grad` NEVER accumulates.
    """
    model, x = network(), batch()
    parameters = list(model.parameters())
    loss = model(x).square().mean()
    loss.backward()
    as_written = error_message(loss.backward)

    model.zero_grad()
    (once,) = torch.autograd.grad(model(x).square().mean(), parameters[0])
    for _ in range(2):
        model(x).square().mean().backward()
    two_forwards = factor_over(parameters[0].grad, once)
    losses = [model(x).square().mean() for _ in range(2)]
    (both,) = torch.autograd.grad(losses, parameters[0])
    in_one_call = factor_over(both, once)
    return Evidence(
        judge(holds=not as_written, caveat=in_one_call != 1),
        f"The second loss.backward() {ending(as_written)}; with a forward each, two leave {two_forwards:g} times the "
        f"gradient. And autograd.grad of a list of two losses returns {in_one_call:g} times the gradient: it adds "
        "within a call, not from one call to the next.",
        "for microbatch in window: (loss_of(microbatch) / len(window)).backward(), a forward for each.",
    )


def ecosystem() -> Evidence:
    """All PyTorch tools assume `.backward()` is building gradients.

    Optimizers, schedulers, AMP, DDP, hooks on `.grad`, gradient clipping. Using `autograd.grad` bypasses most of this
    infrastructure.
    """
    named = (tools.optimizers, tools.schedulers, tools.amp, tools.ddp, tools.hooks, tools.clipping)
    indifferent = [name_of(tool) for tool in named if tool().verdict is ClaimVerdict.FAILS]
    return Evidence(
        judge(holds=not indifferent),
        f"{len(indifferent)} of the {len(named)} read p.grad and do not care who filled it: {', '.join(indifferent)}. "
        "See the claim on each.",
        "What hangs on autograd's accumulation into leaves needs .backward(): DDP, and the hooks that run there. "
        "What reads p.grad does not.",
    )


def standard_loop() -> Evidence:
    """`.backward()` is designed for the standard training loop.

    `optimizer.zero_grad()`, `loss.backward()`, `optimizer.step()`: this pattern is universal, stable.
    """
    x = batch().detach()

    def train(kind: type[Any]) -> None:
        weight = nn.Parameter(torch.eye(2, 3, dtype=torch.float64))  # a matrix: Muon takes nothing else
        optimizer = kind([weight])
        for _ in range(3):
            optimizer.zero_grad()
            loss = (x @ weight).square().mean()
            loss.backward()
            optimizer.step()

    refused = {kind.__name__: error for kind in ALL_OPTIMIZERS if (error := error_message(partial(train, kind)))}
    return Evidence(
        judge(holds=len(refused) < len(ALL_OPTIMIZERS), caveat=bool(refused)),
        f"{len(ALL_OPTIMIZERS) - len(refused)} of the {len(ALL_OPTIMIZERS)} optimizers of torch.optim run these three "
        f"lines. {len(refused)} do not: {'; '.join(f'{kind} {ending(error)}' for kind, error in refused.items())}.",
        "Most do. LBFGS takes a closure, SparseAdam sparse gradients, and fp16 a GradScaler around the last two.",
    )
