"""The two routes by which a microbatch's gradient reaches ``p.grad``. Read them side by side.

``backward`` lets autograd do it. ``manual`` asks for the gradients and wires them in by hand, and so has to
keep by itself the promises that autograd's ``AccumulateGrad`` node keeps (``accumulate_grad.h`` in PyTorch):

* a parameter that the loss does not reach keeps ``None``: with a zero, weight decay and momentum move it;
* no two parameters, and nobody else, hold one gradient tensor: the next in-place add or clip changes both;
* a gradient is laid out as its parameter is: fused optimizers walk both in memory order;
* a tied weight is one parameter with one gradient;
* a sparse gradient stays sparse, until a dense one is added to it.

The second promise autograd itself breaks where two parameters enter a sum through a view, as in
``a.flatten() + b.flatten()``: https://github.com/pytorch/pytorch/issues/34082. There, ``manual`` is right and
``backward`` is not.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

Route: TypeAlias = Callable[[Tensor, Sequence[nn.Parameter]], None]


def backward(loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Add the gradient of ``loss`` into the ``.grad`` of every leaf it depends on.

    Args:
        loss: scalar, already normalized and scaled.
        parameters: not needed here; ``.backward()`` finds the leaves itself.
    """
    loss.backward()


def manual(loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Add the gradient of ``loss`` into the ``.grad`` of ``parameters``, in the same bits as ``backward``.

    Args:
        loss: scalar, already normalized and scaled.
        parameters: where the gradients go; frozen ones are passed over, repeated ones count once.
    """
    leaves = [p for p in dict.fromkeys(parameters) if p.requires_grad]
    gradients: list[Tensor | None] = list(torch.autograd.grad(loss, leaves, allow_unused=True))
    taken: set[int] = set()
    for index, p in enumerate(leaves):
        alone = is_sole_owner(gradients, index)
        g, gradients[index] = gradients[index], None  # released as soon as it is added
        if g is None:
            continue
        if p.grad is None:
            p.grad = g if alone and fits(g, p) and storage_of(g) not in taken else copy_for(g, p)
            taken.add(storage_of(p.grad))
        elif p.grad.is_sparse and not g.is_sparse:
            p.grad = g + p.grad  # the sum is dense, which the sparse tensor cannot become in place
        else:
            p.grad.add_(g)


def is_sole_owner(gradients: Sequence[Tensor | None], index: int) -> bool:
    """Whether nothing but ``gradients`` holds the tensor at ``index``, and holds it once.

    ``autograd.grad`` returns one tensor twice for two parameters that enter as a sum, and may return one that a
    hook has kept or a custom Function had saved. AccumulateGrad asks its reference count, and so do we.
    """
    return sys.getrefcount(gradients[index]) <= 2  # the list's reference, and this call's


def fits(g: Tensor, p: Tensor) -> bool:
    """Whether ``g`` is laid out in memory as a gradient of ``p`` should be (PyTorch's layout contract)."""
    if g.is_sparse:
        return True
    if not is_dense(p):
        return g.is_contiguous()
    return all(
        have != 0 if size == 1 else have == want
        for size, have, want in zip(g.shape, g.stride(), p.stride(), strict=True)
    )


def copy_for(g: Tensor, p: Tensor) -> Tensor:
    """A copy of ``g`` that shares no memory and is laid out as a gradient of ``p`` should be."""
    if g.is_sparse:
        return g.clone()
    if not is_dense(p):
        return g.clone(memory_format=torch.contiguous_format)
    return torch.empty_like(p, requires_grad=False).copy_(g)


def is_dense(p: Tensor) -> bool:
    """Whether the elements of ``p`` fill one stretch of memory, each once, in whatever order."""
    return torch.empty_like(p, device="meta").stride() == p.stride()


def storage_of(g: Tensor) -> int:
    """An identity of the memory behind ``g``, whatever part of it ``g`` shows."""
    values = g._values() if g.is_sparse else g
    return values.untyped_storage().data_ptr()
