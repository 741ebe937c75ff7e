"""Six claimed benefits of ``torch.autograd.grad`` over ``.backward()``."""

import torch

from gradparity.parity.bits import same_bits
from gradparity.studies.calculus_tour import derivatives
from gradparity.studies.calculus_tour.known_functions import scalar, unstacked, vector, vector_jacobian
from gradparity.studies.claims.evidence import Evidence, judge
from gradparity.studies.claims.examples import (
    batch,
    count_filled,
    ending,
    error_message,
    factor_over,
    largest_error,
    network,
)


def returns() -> Evidence:
    """`autograd.grad` RETURNS the gradient — it does NOT write into `.grad`.

    With `autograd.grad`, no accumulation ever happens.
    """
    x = batch()
    hidden = 2 * x
    hidden.retain_grad()  # makes PyTorch keep the .grad of a non-leaf tensor
    y = scalar(hidden).sum()
    for _ in range(2):
        (once,) = torch.autograd.grad(y, x, retain_graph=True)
    written, retained = factor_over(x.grad, once), factor_over(hidden.grad, once / 2)
    for _ in range(2):
        y.backward(retain_graph=True)
    stateful = factor_over(x.grad, once)
    return Evidence(
        judge(holds=written == 0 and stateful == 2, caveat=retained != 0),
        f"In x.grad two calls of autograd.grad leave {written:g} times the gradient, two of .backward() {stateful:g} "
        f"times. But a tensor between x and y with retain_grad() has {retained:g} times its own in .grad after "
        "the calls of autograd.grad.",
        "autograd.grad leaves the .grad of leaves alone. That of other tensors is written by a hook, which "
        "runs for both, and adds.",
    )


def many_inputs() -> Evidence:
    """`autograd.grad` works naturally with multiple inputs: `gx, gy = torch.autograd.grad(out, (x, y))`."""
    x, y = (column.detach().requires_grad_() for column in batch().unbind(dim=1))
    out = unstacked(vector)(x, y)
    as_written = error_message(lambda: torch.autograd.grad(out, (x, y), retain_graph=True))
    unused = torch.zeros(3, requires_grad=True)
    with_unused = error_message(lambda: torch.autograd.grad(out.sum(), (x, unused), retain_graph=True))

    seed = torch.ones_like(out)
    gradients = torch.autograd.grad(out, (x, y), seed, retain_graph=True)
    out.backward(seed, inputs=(x, y))
    agree = sum(leaf.grad is not None and same_bits(leaf.grad, g) for leaf, g in zip((x, y), gradients, strict=True))
    return Evidence(
        judge(holds=not as_written, caveat=bool(with_unused)),
        f"On a batch, out of shape {list(out.shape)}, it {ending(as_written)}. With a seed it returns "
        f"{len(gradients)} gradients, and .backward(seed, inputs=(x, y)) leaves {agree} of them in .grad, bit for bit. "
        f"An input that is not used {ending(with_unused)}.",
        "gx, gy = torch.autograd.grad(out, (x, y), grad_outputs=torch.ones_like(out)); add allow_unused=True where an "
        "input may go unused.",
    )


def jacobian_rows() -> Evidence:
    """`autograd.grad` is necessary when you want Jacobian rows without side effects.

    `gx = torch.autograd.grad(y[:, k], x)[0]`
    """
    x = batch()
    y, by_hand = vector(x), vector_jacobian(x.detach())
    as_written = error_message(lambda: torch.autograd.grad(y[:, 0], x, retain_graph=True))
    by_backward = error_message(lambda: y[:, 0].backward(retain_graph=True))

    rows = [torch.autograd.grad(y[:, k].sum(), x, retain_graph=True)[0] for k in range(3)]
    summed = largest_error(torch.stack(rows, dim=1), by_hand)
    (by_func,) = derivatives.jacobians_by_func(vector, x)
    otherwise = largest_error(by_func, by_hand)
    return Evidence(
        judge(holds=not as_written, caveat=otherwise < 1e-12),
        f"On a batch, y of shape {list(y.shape)}, it {ending(as_written)}; y[:, k].backward() {ending(by_backward)}. "
        f"Summed over the batch, {len(rows)} rows come out with an error of {summed:.1g}. Nor is it necessary: by "
        f"torch.func.jacrev, which writes no .grad either, it is {otherwise:.1g}.",
        "torch.autograd.grad(y[:, k].sum(), x, retain_graph=True)[0], if no sample depends on another; or "
        "torch.func.vmap(torch.func.jacrev(f))(x).",
    )


def functional() -> Evidence:
    """`autograd.grad` is functional; `.backward()` is stateful."""
    x, runs = batch(), list[int]()
    x.register_hook(lambda g: runs.append(1))
    y = scalar(x).sum()
    (once,) = torch.autograd.grad(y, x, retain_graph=True)
    (again,) = torch.autograd.grad(y, x)
    third = error_message(lambda: torch.autograd.grad(y, x))
    calls, written = len(runs), factor_over(x.grad, once)
    for _ in range(2):
        scalar(x).sum().backward()
    stateful = factor_over(x.grad, once)
    return Evidence(
        judge(holds=same_bits(once, again) and written == 0 and stateful == 2, caveat=bool(third) or calls > 0),
        f"In x.grad two calls of autograd.grad leave {written:g} times the gradient, two of .backward() {stateful:g} "
        f"times. But autograd.grad uses up the graph: after one call without retain_graph the next {ending(third)}. "
        f"And it ran a hook on x {calls} times.",
        "autograd.grad keeps its result out of the .grad of leaves; it still frees the graph and runs hooks.",
    )


def in_loops() -> Evidence:
    """`autograd.grad` is safer inside loops.

    `autograd.grad` returns fresh gradients — no accumulation ever.
    """
    x = batch()
    gradients = [torch.autograd.grad(scalar(x).sum(), x)[0] for _ in range(5)]
    fresh = len({g.data_ptr() for g in gradients if same_bits(g, gradients[0])})
    for _ in range(5):
        scalar(x).sum().backward()
    stateful = factor_over(x.grad, gradients[0])

    a, b = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    seed = torch.ones(3)
    ga, gb = torch.autograd.grad(a + b, (a, b), grad_outputs=seed)
    ga.mul_(10)  # as clipping would
    changed = int(gb[0] == 10) + int(seed[0] == 10)
    return Evidence(
        judge(holds=fresh == 5 and stateful == 5, caveat=changed > 0),
        f"5 rounds of autograd.grad return the gradient in {fresh} tensors; 5 of .backward() leave {stateful:g} times "
        f"it in x.grad. But of ga, gb = torch.autograd.grad(a + b, (a, b), seed), changing ga in place changed "
        f"{changed} of 2 others, gb and seed: they are one tensor.",
        "Nothing accumulates, but clone what autograd.grad returns before you change it in place.",
    )


def vjp() -> Evidence:
    """`autograd.grad` is better for custom loss constructions.

    You can build arbitrary VJPs. `.backward()` forces writing into `.grad`, which can conflict with training loops.
    """
    model, x = network(), batch()
    parameters = list(model.parameters())
    y = model(x)
    v = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    (product,) = torch.autograd.grad(y, x, grad_outputs=v, retain_graph=True)
    by_grad = count_filled([x, *parameters])
    y.backward(gradient=v, inputs=[x], retain_graph=True)
    agree, beside = x.grad is not None and same_bits(x.grad, product), count_filled(parameters)
    y.backward(gradient=v)
    everywhere = count_filled(parameters)
    return Evidence(
        judge(holds=by_grad == 0 and everywhere > 0, caveat=agree and beside == 0),
        f".backward(gradient=v, inputs=[x]) computes the VJP too, {'in' if agree else 'not in'} the same bits "
        f"({product.numel():,} numbers), and beside x.grad it fills the .grad of {beside} of {len(parameters)} "
        f"parameters. Without inputs= it fills {everywhere}.",
        "Either computes any VJP. .backward(gradient=v, inputs=[x]) writes x.grad and nothing else.",
    )
