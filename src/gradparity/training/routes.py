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

``autograd.grad`` ends before the AccumulateGrad nodes. Not run by hand, where ``.backward()`` runs them, are:

* post-accumulate hooks, and with them an optimizer that steps inside the backward;
* hooks of the AccumulateGrad node itself, in which DDP exchanges gradients;
* multi-grad hooks that wait for a parameter: ``autograd.grad`` raises;
* nodes that lead to none of the parameters, with their hooks: a full backward hook of a module whose only
  differentiable input is a leaf, or the ``.grad`` of that leaf;
* a reentrant checkpoint, and any custom Function whose backward runs a backward: refused, see
  :mod:`gradparity.training.unsupported`.

Refused too are parameters that are not plain and dense: DTensor (FSDP2, tensor parallelism), nested, CSR, MKLDNN.

Hooks must not change a gradient in place, PyTorch's documentation says, but return a new one. Two parameters that enter
as a sum share one gradient. If a hook on one of them changes it, ``manual`` raises; a hook on a tensor inside the graph
that does the same is not seen.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from gradparity.training.unsupported import refuse, refuse_changed, versions_of

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

    Gradients are of first order: they have no graph. If autograd raises, as in a hook, nothing has been added.

    Args:
        loss: scalar, already normalized and scaled.
        parameters: where the gradients go; frozen ones are passed over, repeated ones count once.

    Raises:
        RuntimeError: where the gradients would not be those of ``backward``; nothing has been added then.
    """
    leaves = [p for p in dict.fromkeys(parameters) if p.requires_grad]
    refuse(loss, leaves)
    if not leaves:
        return
    with versions_of(leaves) as versions:
        gradients: list[Tensor | None] = list(torch.autograd.grad(loss, leaves, allow_unused=True))
    refuse_changed(gradients, versions)
    taken: set[int] = set()
    with torch.no_grad():
        for index, p in enumerate(leaves):
            alone = is_sole_owner(gradients, index)
            g, gradients[index] = gradients[index], None  # released as soon as it is added
            if g is None:
                continue
            if p.grad is None:
                p.grad = take(g) if alone and fits(g, p) and storage_of(g) not in taken else copy_for(g, p)
                taken.add(storage_of(p.grad))
            elif p.grad.is_sparse and not g.is_sparse:
                p.grad = g + p.grad  # the sum is dense, which the sparse tensor cannot become in place
            else:
                p.grad.add_(g)


def is_sole_owner(gradients: Sequence[Tensor | None], index: int) -> bool:
    """Return whether nothing but ``gradients`` holds the tensor at ``index``, and holds it once.

    ``autograd.grad`` returns one tensor twice for two parameters that enter as a sum, and may return one that a
    hook has kept or a custom Function had saved. AccumulateGrad asks its reference count, and so do we.
    """
    return sys.getrefcount(gradients[index]) <= 2  # the list's reference, and this call's


def fits(g: Tensor, p: Tensor) -> bool:
    """Return whether ``g`` is laid out in memory as a gradient of ``p`` should be (PyTorch's layout contract)."""
    if g.is_sparse:
        return g._indices().is_contiguous() and g._values().is_contiguous()
    if not is_dense(p):
        return g.is_contiguous()
    return all(
        have != 0 if size == 1 else have == want
        for size, have, want in zip(g.shape, g.stride(), p.stride(), strict=True)
    )


def take(g: Tensor) -> Tensor:
    """Return ``g`` itself, without a graph; a sparse one loses its coalesced flag, as in AccumulateGrad."""
    if g.is_sparse:
        with torch.sparse.check_sparse_tensor_invariants(False):  # without this choice, torch 2.11 warns
            return torch.sparse_coo_tensor(g._indices(), g._values(), g.shape)
    return g.detach()


def copy_for(g: Tensor, p: Tensor) -> Tensor:
    """Return a copy of ``g`` that shares no memory and is laid out as a gradient of ``p`` should be."""
    if g.is_sparse:
        return g.clone()
    if not is_dense(p):
        return g.clone(memory_format=torch.contiguous_format)
    return g.new_empty_strided(p.size(), p.stride()).copy_(g)


def is_dense(p: Tensor) -> bool:
    """Return whether the elements of ``p`` fill one stretch of memory, each once, in any order."""
    return torch.empty_like(p, device="meta").stride() == p.stride()


def storage_of(g: Tensor) -> int:
    """Return an identity of the memory behind ``g``, whichever part of it ``g`` shows."""
    values = g._values() if g.is_sparse else g
    storage: int = values.untyped_storage()._cdata
    return storage
