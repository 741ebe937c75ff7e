"""Gradients, Jacobians and Hessians of batched functions, by ``autograd.grad``, ``.backward()`` and ``torch.func``.

Read ``derivatives`` first. ``known_functions`` has functions with derivatives known in closed form, to test them on.
"""

from gradparity.studies.calculus_tour.derivatives import (
    VJP,
    gradients,
    gradients_by_func,
    hessians,
    hessians_by_func,
    jacobians,
    jacobians_by_func,
    vjp_by_backward,
    vjp_by_grad,
)

__all__ = [
    "VJP",
    "gradients",
    "gradients_by_func",
    "hessians",
    "hessians_by_func",
    "jacobians",
    "jacobians_by_func",
    "vjp_by_backward",
    "vjp_by_grad",
]
