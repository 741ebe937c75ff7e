"""Batched functions whose derivatives are known: two of two variables, derived by hand, and a random family.

All take one stacked input ``x`` of shape ``[N, D]``; ``unstacked`` gives the same function of D inputs ``[N]``.
The derivatives are plain formulas, without autograd.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def unstacked(f: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """Return ``f`` as a function of D separate inputs ``[N]`` instead of one stacked ``[N, D]``."""
    return lambda *columns: f(torch.stack(columns, dim=1))


def scalar(x: Tensor) -> Tensor:
    """Return the scalar function x1 x2 + sin(x1 x2²), ``[N, 2]`` -> ``[N]``."""
    x1, x2 = x.unbind(dim=1)
    return x1 * x2 + torch.sin(x1 * x2**2)


def scalar_gradient(x: Tensor) -> Tensor:
    """Return the gradient of ``scalar``, ``[N, 2]`` -> ``[N, 2]``."""
    x1, x2 = x.unbind(dim=1)
    cos = torch.cos(x1 * x2**2)
    return torch.stack((x2 + x2**2 * cos, x1 + 2 * x1 * x2 * cos), dim=1)


def scalar_hessian(x: Tensor) -> Tensor:
    """Return the Hessian of ``scalar``, ``[N, 2]`` -> ``[N, 2, 2]``."""
    x1, x2 = x.unbind(dim=1)
    sin, cos = torch.sin(x1 * x2**2), torch.cos(x1 * x2**2)
    h11 = -(x2**4) * sin
    h12 = 1 + 2 * x2 * cos - 2 * x1 * x2**3 * sin
    h22 = 2 * x1 * cos - 4 * x1**2 * x2**2 * sin
    return torch.stack((torch.stack((h11, h12), dim=1), torch.stack((h12, h22), dim=1)), dim=1)


def vector(x: Tensor) -> Tensor:
    """Return the vector function (x1 x2, sin(x1 + x2²), x1² - 3 x2), ``[N, 2]`` -> ``[N, 3]``."""
    x1, x2 = x.unbind(dim=1)
    return torch.stack((x1 * x2, torch.sin(x1 + x2**2), x1**2 - 3 * x2), dim=1)


def vector_jacobian(x: Tensor) -> Tensor:
    """Return the Jacobian of ``vector``, ``[N, 2]`` -> ``[N, 3, 2]``."""
    x1, x2 = x.unbind(dim=1)
    cos = torch.cos(x1 + x2**2)
    by_x1 = torch.stack((x2, cos, 2 * x1), dim=1)
    by_x2 = torch.stack((x1, 2 * x2 * cos, torch.full_like(x2, -3)), dim=1)
    return torch.stack((by_x1, by_x2), dim=2)


@dataclass(frozen=True)
class Waves:
    """The family f_k(x) = Σ_t a_kt sin(b_t·x + c_t) + x·Q_k x + m_k·x, of D variables.

    Its derivatives are known in closed form for any coefficients. The first and second derivatives are not constant.
    """

    a: Tensor
    """Amplitudes of T waves in each output, ``[out, T]``."""
    b: Tensor
    """Wave vectors, ``[T, D]``."""
    c: Tensor
    """Phases, ``[T]``."""
    q: Tensor
    """Quadratic forms, ``[out, D, D]``; not symmetric, so that the transpose in Q + Qᵀ matters."""
    m: Tensor
    """Linear forms, ``[out, D]``."""

    @classmethod
    def draw(cls, outputs: int, inputs: int, terms: int, generator: torch.Generator) -> "Waves":
        """Draw all coefficients uniformly from [-1, 1), in float64."""

        def uniform(*shape: int) -> Tensor:
            return 2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1

        return cls(
            a=uniform(outputs, terms),
            b=uniform(terms, inputs),
            c=uniform(terms),
            q=uniform(outputs, inputs, inputs),
            m=uniform(outputs, inputs),
        )

    def value(self, x: Tensor) -> Tensor:
        """Return the values of the functions, ``[N, D]`` -> ``[N, out]``."""
        waves = torch.sin(x @ self.b.T + self.c) @ self.a.T
        return waves + torch.einsum("ni,kij,nj->nk", x, self.q, x) + x @ self.m.T

    def jacobian(self, x: Tensor) -> Tensor:
        """Return the Jacobian of the functions, ``[N, D]`` -> ``[N, out, D]``."""
        waves = torch.einsum("kt,nt,ti->nki", self.a, torch.cos(x @ self.b.T + self.c), self.b)
        return waves + torch.einsum("kij,nj->nki", self.q + self.q.mT, x) + self.m

    def hessian(self, x: Tensor) -> Tensor:
        """Return the Hessians of the functions, ``[N, D]`` -> ``[N, out, D, D]``."""
        sin = torch.sin(x @ self.b.T + self.c)
        return self.q + self.q.mT - torch.einsum("kt,nt,ti,tj->nkij", self.a, sin, self.b, self.b)
