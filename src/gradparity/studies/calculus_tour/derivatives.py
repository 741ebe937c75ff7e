"""Derivatives of batched functions: by ``torch.autograd.grad``, by ``.backward()`` and by ``torch.func``.

A batched function takes tensors with leading dimension N, one sample per row, and returns ``[N]`` (scalar
function) or ``[N, out]`` (vector function). Samples do not interact: row i of the output depends on row i of
the inputs alone. Nothing here checks that; where samples interact, results are wrong, and mostly disagree.

Autograd has one operation, the vector-Jacobian product (VJP): it multiplies a *seed*, shaped like the output,
into the Jacobian from the left. The first two functions wrap the two APIs for it; the rest is a choice of
seeds, written once for both. ``torch.func`` differentiates one sample and maps that over the batch.

A derivative is returned as plain numbers: it has no graph, shares no memory, and is zero where autograd finds
no path from the input to the output. The caller's tensors need not require grad, and keep the ``.grad`` they
had. An output computed under ``no_grad`` or from ``.detach()`` has no path, so its derivative is zero too.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from torch.func import grad, jacrev, vmap

BatchedFunction: TypeAlias = Callable[..., Tensor]


class VJP(Protocol):
    """A way to multiply a seed into the Jacobian: ``vjp_by_grad`` or ``vjp_by_backward``."""

    def __call__(
        self, output: Tensor, inputs: tuple[Tensor, ...], seed: Tensor, create_graph: bool = False
    ) -> tuple[Tensor, ...]:
        """Multiply ``seed`` into the Jacobian; see ``vjp_by_grad``."""


def vjp_by_grad(
    output: Tensor, inputs: tuple[Tensor, ...], seed: Tensor, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Multiply ``seed`` into the Jacobian by ``torch.autograd.grad``, which returns the product.

    Args:
        output: what was computed from ``inputs``; its graph is retained, so that another seed can follow.
        inputs: leaves that require grad.
        seed: shaped like ``output``.
        create_graph: record the product itself, so that it can be differentiated again.

    Returns:
        One tensor shaped like each input, zero where ``output`` does not depend on it.
    """
    if not output.requires_grad:  # a constant
        return tuple(torch.zeros_like(x) for x in inputs)
    return torch.autograd.grad(
        output, inputs, seed, retain_graph=True, create_graph=create_graph, materialize_grads=True
    )


def vjp_by_backward(
    output: Tensor, inputs: tuple[Tensor, ...], seed: Tensor, create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Multiply ``seed`` into the Jacobian by ``torch.Tensor.backward``, which adds the product to ``.grad``.

    Takes and returns the same as ``vjp_by_grad``. Expects ``.grad`` of ``inputs`` to be None, and leaves it None.
    """
    if not output.requires_grad:  # a constant
        return tuple(torch.zeros_like(x) for x in inputs)
    with warnings.catch_warnings():
        # With create_graph, x.grad refers to a graph that refers to x; emptying x.grad breaks the cycle.
        warnings.filterwarnings("ignore", message=r"Using backward\(\) with create_graph=True")
        # Without `inputs`, every other leaf would get a gradient: the parameters of a model, for one.
        output.backward(seed, retain_graph=True, create_graph=create_graph, inputs=inputs)
    product = tuple(torch.zeros_like(x) if x.grad is None else x.grad for x in inputs)
    for x in inputs:
        x.grad = None  # the next VJP would add to it
    return product


def gradients(f: BatchedFunction, *inputs: Tensor, vjp: VJP = vjp_by_grad) -> tuple[Tensor, ...]:
    """Return the per-sample gradient of a scalar function, by one VJP for the whole batch.

    The Jacobian of the N outputs with respect to N samples is block diagonal, so the seed (1, ..., 1) reads
    off every sample's gradient at once. Where samples interact it gives the column sums of the full Jacobian.

    Args:
        f: takes ``inputs``, returns ``[N]``.
        inputs: floating point, ``[N]`` or ``[N, D]`` each.
        vjp: ``vjp_by_grad`` or ``vjp_by_backward``.

    Returns:
        One tensor shaped like each input.

    Raises:
        ValueError: if the inputs, or the output of ``f``, are not of the shape and dtype above.

    >>> gradients(lambda x: x.prod(dim=1), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    (tensor([[2., 1.],
            [4., 3.]]),)
    """
    leaves = _as_leaves(inputs)
    output = _evaluate(f, leaves, rank=1)
    return _as_figures(vjp(output, leaves, torch.ones_like(output)))


def jacobians(f: BatchedFunction, *inputs: Tensor, vjp: VJP = vjp_by_grad) -> tuple[Tensor, ...]:
    """Return the per-sample Jacobian of a vector function, by one VJP for each of its outputs.

    Args:
        f: takes ``inputs``, returns ``[N, out]``.
        inputs: floating point, ``[N]`` or ``[N, D]`` each.
        vjp: ``vjp_by_grad`` or ``vjp_by_backward``.

    Returns:
        For each input, ``[N, out]`` or ``[N, out, D]``. Results for inputs ``[N]`` stack along ``dim=2``.

    Raises:
        ValueError: if the inputs, or the output of ``f``, are not of the shape and dtype above.
    """
    leaves = _as_leaves(inputs)
    return _jacobian_rows(_evaluate(f, leaves, rank=2), leaves, vjp)


@torch.enable_grad()
def hessians(f: BatchedFunction, *inputs: Tensor, vjp: VJP = vjp_by_grad) -> tuple[Tensor, ...]:
    """Return the per-sample second derivative of a scalar function by each input: the Jacobian of the gradient.

    Derivatives by two different inputs are left out; to get them, stack the inputs into one.

    Args:
        f: takes ``inputs``, returns ``[N]``.
        inputs: floating point, ``[N]`` or ``[N, D]`` each.
        vjp: ``vjp_by_grad`` or ``vjp_by_backward``.

    Returns:
        For each input, ``[N]`` or ``[N, D, D]``.

    Raises:
        ValueError: if the inputs, or the output of ``f``, are not of the shape and dtype above.
    """
    leaves = _as_leaves(inputs)
    output = _evaluate(f, leaves, rank=1)
    firsts = vjp(output, leaves, torch.ones_like(output), create_graph=True)
    blocks = []
    for x, first in zip(leaves, firsts, strict=True):
        (block,) = _jacobian_rows(first.reshape(len(first), -1), (x,), vjp)
        blocks.append(block.reshape(*x.shape, *x.shape[1:]))
    return tuple(blocks)


def _jacobian_rows(output: Tensor, inputs: tuple[Tensor, ...], vjp: VJP) -> tuple[Tensor, ...]:
    """Return ``[N, out, ...]`` for each input; row k of every sample comes from the seed that is one in column k."""
    jacobians = tuple(x.new_empty(*output.shape, *x.shape[1:]) for x in inputs)
    for k in range(output.shape[1]):
        seed = torch.zeros_like(output)
        seed[:, k] = 1
        for jacobian, row in zip(jacobians, vjp(output, inputs, seed), strict=True):
            jacobian[:, k] = row
    return jacobians


def gradients_by_func(f: BatchedFunction, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the per-sample gradient of a scalar function, by ``torch.func.vmap`` of ``torch.func.grad``.

    Takes, returns and raises the same as ``gradients``, but calls ``f`` on batches of one sample.
    """
    _evaluate(f, _as_leaves(inputs), rank=1)  # for its checks alone
    return _as_figures(vmap(grad(_on_one_sample(f, rank=1), argnums=tuple(range(len(inputs)))))(*inputs))


def jacobians_by_func(f: BatchedFunction, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the per-sample Jacobian of a vector function, by ``torch.func.vmap`` of ``torch.func.jacrev``.

    Takes, returns and raises the same as ``jacobians``, but calls ``f`` on batches of one sample.
    """
    _evaluate(f, _as_leaves(inputs), rank=2)
    return _as_figures(vmap(jacrev(_on_one_sample(f, rank=2), argnums=tuple(range(len(inputs)))))(*inputs))


def hessians_by_func(f: BatchedFunction, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the per-sample second derivative by each input, by ``torch.func.vmap`` of ``jacrev`` of ``grad``.

    Takes, returns and raises the same as ``hessians``, but calls ``f`` on batches of one sample.
    ``torch.func.hessian`` takes the outer derivative in forward mode, for which PyTorch 2.13 gives a warning.
    """
    _evaluate(f, _as_leaves(inputs), rank=1)
    one = _on_one_sample(f, rank=1)
    return _as_figures(vmap(jacrev(grad(one, argnums=i), argnums=i))(*inputs) for i in range(len(inputs)))


def _on_one_sample(f: BatchedFunction, rank: int) -> BatchedFunction:
    """Return ``f`` for a single sample, without the leading dimension, for ``torch.func.vmap`` to map over a batch."""
    return lambda *sample: _evaluate(f, tuple(x.unsqueeze(0) for x in sample), rank).squeeze(0)


def _as_leaves(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return detached views of ``inputs`` that require grad; the ``.grad`` of the caller's tensors stays as it is.

    Raises:
        ValueError: if there are no inputs, one is not floating point or has no samples, they differ in N, or inference
            mode is on or made one of them.
    """
    if not inputs:
        raise ValueError("there are no inputs to differentiate by; pass at least one tensor [N] or [N, D]")
    if torch.is_inference_mode_enabled() or any(x.is_inference() for x in inputs):
        raise ValueError("inference mode records no graph; leave it, and clone the inputs made in it")
    for i, x in enumerate(inputs):
        if not x.is_floating_point():
            raise ValueError(f"input {i} is {x.dtype}, not floating point; convert it with .double()")
        if x.ndim == 0 or len(x) == 0:
            raise ValueError(f"input {i} has shape {list(x.shape)}; give it N >= 1 samples, [N] or [N, D]")
        if len(x) != len(inputs[0]):
            raise ValueError(f"input {i} has {len(x)} samples, input 0 has {len(inputs[0])}; they must agree")
    return tuple(x.detach().requires_grad_() for x in inputs)


@torch.enable_grad()
def _evaluate(f: BatchedFunction, inputs: tuple[Tensor, ...], rank: int) -> Tensor:
    """Return the output of ``f``: one floating point tensor, ``[N]`` for ``rank`` 1, ``[N, out]`` for ``rank`` 2.

    Raises:
        ValueError: if the output is anything else.
    """
    output, n = f(*inputs), len(inputs[0])
    if not isinstance(output, Tensor) or not output.is_floating_point():
        kind = getattr(output, "dtype", type(output).__name__)
        raise ValueError(f"f returned {kind}; it must return one floating point tensor")
    if output.ndim != rank or len(output) != n:
        raise ValueError(
            f"f returned shape {list(output.shape)} for N = {n}; "
            "gradients and hessians need [N], jacobians need [N, out]"
        )
    return output


def _as_figures(derivatives: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return copies without a graph: for x + y, ``autograd.grad`` and ``vmap`` return the same memory twice."""
    return tuple(d.detach().clone() for d in derivatives)
