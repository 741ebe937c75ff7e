"""Two ways to a gradient, .backward() and autograd.grad, and any training loop, compared bit for bit.

Run a training script as it is, or a part of a program, and report what is wrong in its loop, with the line::

    $ gradparity audit train.py --its --own arguments

    with gradparity.audit() as audit:
        train(model, optimizer, batches)

Watch a loop and write down what it does; afterwards, compare two such traces, or show one::

    with gradparity.record(model, optimizer, "traces/mine"):
        train(model, optimizer, batches)

    $ gradparity diff traces/reference traces/mine
    $ gradparity show traces/mine

In a test, run two loops from the same start, and fail where they first make different updates::

    gradparity.assert_parity(reference_loop, our_loop, make)

Ask which known bug a loop has, and which common claims about the two ways are true::

    $ gradparity check my_module:train
    $ gradparity claims

``gradparity.training`` is a training step to copy: windows, routes, precision, clipping, and the step that uses them.
It needs torch alone, and each of its files can be read on its own.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradparity.auditing.session import audit
    from gradparity.integrations.testing import assert_parity
    from gradparity.trace.record import record

__all__ = ["assert_parity", "audit", "record"]

_WHERE = {
    "assert_parity": ("gradparity.integrations.testing", "assert_parity"),
    "audit": ("gradparity.auditing.session", "audit"),
    "record": ("gradparity.trace.record", "record"),
}


def __getattr__(name: str) -> Any:
    """Import ``name`` on first use, so that ``gradparity --help`` does not wait for all imports."""
    if name in _WHERE:
        from importlib import import_module

        module, what = _WHERE[name]
        return getattr(import_module(module), what)
    raise AttributeError(f"module 'gradparity' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names of this module and the lazy imports, so that ``help(gradparity)`` and completion show them."""
    return sorted({*globals(), *__all__})
