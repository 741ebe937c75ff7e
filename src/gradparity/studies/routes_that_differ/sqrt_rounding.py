"""Square roots rounded as IEEE 754 says; with them, the for-loop optimizer predicts the fused one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.overrides import TorchFunctionMode

from gradparity.studies.routes_that_differ.loops import VariantLoop
from gradparity.training import Moment, Run, Window, train_step


def exact_root(x: Tensor) -> Tensor:
    """Return the correctly rounded square root. NumPy uses the processor's own instruction, as fused kernels do."""
    return torch.from_numpy(np.sqrt(x.detach().numpy()))


def roots_are_exact(dtype: torch.dtype) -> bool:
    """Return whether ``torch.sqrt`` is correctly rounded too. In Intel's vector library it is not."""
    x = torch.linspace(0, 1, 10_000, dtype=dtype)
    return torch.equal(x.sqrt(), exact_root(x))


class ExactRoots(TorchFunctionMode):
    """A context in which ``tensor.sqrt()`` is :func:`exact_root`."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``function``, or :func:`exact_root` if it is the square root."""
        return exact_root(*args) if function is Tensor.sqrt else function(*args, **(kwargs or {}))


def with_exact_roots(run: Run, window: Window[Any]) -> Iterator[Moment]:
    """Run the reference step with exact square roots. Only the optimizer takes square roots in it."""
    step = train_step(run, window)
    while True:
        with ExactRoots():
            moment = next(step, None)
        if moment is None:
            return
        yield moment


EXACT_ROOTS = VariantLoop("exact square roots", with_exact_roots)


@cache
def kernel_rounds_otherwise(dtype: torch.dtype) -> bool:
    """Return whether, on this machine, the fused kernel differs from the for-loop even if that has exact square roots.

    A compiler may fuse a multiplication and an addition, with one rounding instead of two. On x86 it does not.
    """
    start = torch.linspace(-1, 1, 1024, dtype=dtype)
    updated = []
    for fused in (True, False):
        p = nn.Parameter(start.clone())
        optimizer = AdamW([p], lr=0.01, weight_decay=0.1, fused=fused)
        for power in (1, 2, 3):
            p.grad = start**power
            with nullcontext() if fused else ExactRoots():
                optimizer.step()
        updated.append(p.detach())
    return not torch.equal(*updated)
