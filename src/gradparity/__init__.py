"""Two ways to a gradient, .backward() and autograd.grad, and any training loop, compared bit for bit.

``gradparity.record`` watches a training loop and writes down what it does, for ``gradparity diff`` to compare.
``gradparity.assert_parity`` does both in a test of yours, and fails where two loops first make different updates.
``gradparity.training`` is a training step to copy: windows, routes, precision, clipping, and the step where they meet.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradparity.testing import assert_parity
    from gradparity.trace.recording import record

__all__ = ["assert_parity", "record"]

_WHERE = {"assert_parity": "gradparity.testing", "record": "gradparity.trace.recording"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: ``gradparity --help`` should not wait for all of it."""
    if name in _WHERE:
        from importlib import import_module

        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'gradparity' has no attribute {name!r}")
