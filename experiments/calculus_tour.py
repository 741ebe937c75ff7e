"""Does PyTorch compute, in three ways, the derivatives that one derives by hand?

You will see gradients, Jacobians and Hessians of batched functions, all made by one operation, then four traps.
autograd.grad and .backward() compute the same vector-Jacobian product; they differ in where they put it.
"""

from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.autograd import grad

from gradparity.cli.arguments import check_range
from gradparity.studies import calculus_tour, experiment
from gradparity.studies.calculus_tour.known_functions import (
    Waves,
    scalar,
    scalar_gradient,
    scalar_hessian,
    unstacked,
    vector,
    vector_jacobian,
)
from gradparity.studies.experiment import Finished
from gradparity.studies.result import ANSWER_PAGE, Result
from gradparity.tensorboard import new_folder
from gradparity.tensorboard.pages import table_page

BOUND = 1e-12  # float64 rounds at 1.1e-16; figures here stay below 100 and take some tens of roundings


def steps(x: Tensor) -> Iterator[tuple[str, float | str]]:
    """Sentences, each with its figure: a number is an error, which the verdict counts."""
    x = x.clone().requires_grad_()
    y = scalar(x)
    (g,) = grad(y[0], x, retain_graph=True)
    rows = f"{int(g.any(dim=1).sum())} of {len(x)}"
    yield f"grad(y[0], x) returns a tensor like x and leaves x.grad {x.grad}; nonzero rows", rows
    (g,) = grad(y, x, torch.ones_like(y))
    yield "A seed of ones gives the gradients of all rows in one VJP", error(g, scalar_gradient(x))

    columns = [column.detach().requires_grad_() for column in x.unbind(dim=1)]
    y = unstacked(scalar)(*columns)
    g = torch.stack(grad(y, columns, torch.ones_like(y)), dim=1)
    yield "Two separate inputs get theirs from one VJP as well", error(g, scalar_gradient(x))

    y = vector(x)
    seeds = [row.expand_as(y) for row in torch.eye(3, dtype=y.dtype)]
    jacobian = torch.stack([grad(y, x, seed, retain_graph=True)[0] for seed in seeds], dim=1)
    yield "One-hot seeds pick the rows of all Jacobians, one VJP each", error(jacobian, vector_jacobian(x))

    y = scalar(x)
    (g,) = grad(y, x, torch.ones_like(y), retain_graph=True)
    yield "That gradient has no graph, so differentiating it again raises", refusal(g[:, 0].sum(), x)
    (g,) = grad(y, x, torch.ones_like(y), create_graph=True)
    (h,) = grad(g[:, 0].sum(), x)
    yield "With create_graph it has one: row 0 of all Hessians", error(h, scalar_hessian(x)[:, 0])


def traps(x: Tensor) -> Iterator[tuple[str, float | str]]:
    leaf, unused = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = scalar(leaf).sum()
    once, again = (grad(y, leaf, retain_graph=True)[0] for _ in range(2))
    yield "autograd.grad called twice returns the same gradient twice", error(again, once)
    for _ in range(2):
        y.backward(retain_graph=True)
    assert leaf.grad is not None
    yield ".backward() called twice leaves twice the gradient in .grad", error(leaf.grad, 2 * once)
    yield "An unused input raises", refusal(y, unused)
    (nothing,) = grad(y, unused, allow_unused=True)
    yield "With allow_unused its gradient is, and after .backward() its .grad is", f"{nothing}, {unused.grad}"

    def centred(x: Tensor) -> Tensor:
        return scalar(x - x.mean(dim=0))

    full = torch.func.jacrev(centred)(x)  # every output by every sample, [N, N, 2]
    (seen,) = calculus_tour.gradients(centred, x)
    yield "Where samples interact, a seed of ones gives column sums", error(seen, full.sum(dim=0))
    yield "They miss the per-sample gradient by", f"{error(seen, full.diagonal().mT):.2g}"


def error(have: Tensor, want: Tensor) -> float:
    return (have - want).abs().max().item()


def refusal(y: Tensor, x: Tensor) -> str:
    try:
        grad(y, x, retain_graph=True)
    except RuntimeError as refused:
        return f'"{str(refused).split(". ")[0]}"'
    return "nothing"


def derivatives(x: Tensor, waves: Waves) -> Iterator[tuple[str, Tensor, list[Tensor]]]:
    """Each quantity: its name, its value by hand, and what each way makes of it."""

    def wave(x: Tensor) -> Tensor:
        return waves.value(x)[:, 0]

    for name, f, by_hand, by_vjp, by_func in (
        ("gradient", scalar, scalar_gradient(x), calculus_tour.gradients, calculus_tour.gradients_by_func),
        ("Jacobian", vector, vector_jacobian(x), calculus_tour.jacobians, calculus_tour.jacobians_by_func),
        ("Hessian", scalar, scalar_hessian(x), calculus_tour.hessians, calculus_tour.hessians_by_func),
        ("waves: gradient", wave, waves.jacobian(x)[:, 0], calculus_tour.gradients, calculus_tour.gradients_by_func),
        ("waves: Jacobian", waves.value, waves.jacobian(x), calculus_tour.jacobians, calculus_tour.jacobians_by_func),
        ("waves: Hessian", wave, waves.hessian(x)[:, 0], calculus_tour.hessians, calculus_tour.hessians_by_func),
    ):
        ways = (by_vjp, partial(by_vjp, vjp=calculus_tour.vjp_by_backward), by_func)  # the first by autograd.grad
        yield name, by_hand, [way(f, x)[0] for way in ways]
        found = [torch.stack(way(unstacked(f), *x.unbind(dim=1)), dim=-1) for way in ways]
        by_hand = by_hand.diagonal(dim1=1, dim2=2) if by_vjp is calculus_tour.hessians else by_hand
        yield f"{name.replace('Hessian', 'grad_xx/yy')}, inputs apart", by_hand, found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = experiment.parser("calculus_tour", __doc__)
    parser.add_argument("--n", type=int, default=1000, help="samples, default 1000")
    parser.add_argument("--seed", type=int, default=0, help="of all that is drawn, default 0")
    return experiment.run("calculus_tour", partial(parser.parse_args, arguments), tour)


def tour(given: Namespace, console: Console) -> Finished:
    check_range("--n", given.n, 1, 1_000_000)
    check_range("--seed", given.seed, 0, 2**63 - 1)
    folder = new_folder(given.output / "calculus_tour")
    generator = torch.Generator().manual_seed(given.seed)
    x, few = (2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1 for n in (given.n, 5))
    lines, errors = list[str](), list[float]()
    for sentence, figure in (*steps(x), *traps(few)):
        if not isinstance(figure, str):
            errors.append(figure)
            figure = f"error {figure:.1e}"
        lines.append(f"{sentence}: {figure}")

    table, same_bits = Table("largest error of", "autograd.grad", ".backward()", "torch.func"), list[bool]()
    for name, by_hand, found in derivatives(x, Waves.draw(3, 2, terms=4, generator=generator)):
        row = [error(way, by_hand) for way in found]
        table.add_row(name, *(f"{e:.1e}" for e in row))
        same_bits.append(torch.equal(found[0], found[1]))
        errors += row

    within = [e <= BOUND for e in errors]  # a NaN is not
    result = Result(
        sentence=(
            f"{sum(within)} of {len(errors)} errors are within {BOUND:.0e}, the largest is {max(errors):.1e}; "
            f"autograd.grad and .backward() agree bit for bit in {sum(same_bits)} of {len(same_bits)} rows."
        ),
        holds=all(within),
        terminal=[*(f"{number:2}. {line}" for number, line in enumerate(lines, start=1)), table],
        pages={ANSWER_PAGE: table_page(table), "2 steps": "\n".join(f"1. {line}" for line in lines)},
    )
    return Finished(result, folder)


if __name__ == "__main__":
    raise SystemExit(main())
