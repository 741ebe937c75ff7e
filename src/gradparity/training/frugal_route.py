"""The manual route in the memory that ``.backward()`` takes. Read ``routes`` first.

``autograd.grad`` returns all gradients at once. From the second microbatch on, that is a second set of them beside
the one in ``p.grad``, where ``.backward()`` adds each gradient as soon as it is there and lets it go. A hook can do
the same: ``autograd.grad`` shows a leaf's whole gradient to that leaf's hooks, and returns what they make of it.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from gradparity.training.routes import copy_for, manual, take
from gradparity.training.unsupported import refuse


def frugal(loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    """Do what :func:`gradparity.training.routes.manual` does, without ever holding a second set of gradients.

    If autograd raises, as in a hook, the gradients that came before have been added, as after ``.backward()``.

    Args:
        loss: scalar, already normalized and scaled.
        parameters: where the gradients go; frozen ones are passed over, repeated ones count once.

    Raises:
        RuntimeError: where the gradients would not be those of ``backward``; nothing has been added then.
    """
    leaves = [p for p in dict.fromkeys(parameters) if p.requires_grad]
    if all(p.grad is None for p in leaves):
        manual(loss, leaves)  # which takes first gradients over as they are
        return
    refuse(loss, leaves)
    hooks = [p.register_hook(partial(add_now, p)) for p in leaves]
    try:
        torch.autograd.grad(loss, leaves, allow_unused=True)
    finally:
        for hook in hooks:
            hook.remove()


def add_now(p: nn.Parameter, g: Tensor | None) -> Tensor | None:
    """Add ``g`` to ``p.grad``, and return a zero of its shape, without memory, for autograd to return in its place."""
    if g is None:  # as where PyTorch knows that a derivative is zero
        return None
    if p.grad is None:
        p.grad = copy_for(take(g), p)
    else:
        p.grad = g + p.grad if p.grad.is_sparse and not g.is_sparse else p.grad.add_(g)
    return torch.zeros_like(g) if g.is_sparse else g.new_zeros(()).expand_as(g)
