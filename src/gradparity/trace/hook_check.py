"""Check, with one tiny backward and one tiny grad, that a recording on this version of torch sees both."""

from collections.abc import Callable
from typing import Any

import torch

from gradparity.errors import UserError
from gradparity.trace.isolation import aside
from gradparity.trace.wrapping import wrapped

ENGINE = "_engine_run_backward"
"""The function of torch.autograd that .backward(), autograd.backward and autograd.grad all go through."""


def inputs_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], bool]:
    """Return the ``inputs`` of a call of the engine, and whether the call accumulates into ``.grad``."""
    inputs = args[4] if len(args) > 4 else kwargs.get("inputs", ())
    return tuple(inputs or ()), bool(kwargs.get("accumulate_grad", False))


def require_sight() -> None:
    """Differentiate a number in both ways, and check that both calls are seen. This changes nothing else.

    Raises:
        UserError: if a call is not seen.
    """
    seen: list[tuple[int, bool]] = []

    def notice(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        inputs, into_grad = inputs_of(args, kwargs)
        seen.append((len(inputs), into_grad))
        return run(*args, **kwargs)

    with wrapped(torch.autograd, ENGINE, notice), aside(), torch.inference_mode(False), torch.enable_grad():
        x = torch.zeros((), device="cpu", requires_grad=True)
        x.clone().backward()
        torch.autograd.grad(x.clone(), x)
    if seen != [(0, True), (1, False)]:
        raise UserError(
            f"this version of torch ({torch.__version__}) differentiates where gradparity does not see it; "
            "install one from 2.11 to 2.15"
        )
