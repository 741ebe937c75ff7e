"""Isolation of the recorder's code, so that it runs in the middle of a training without any effect on the training.

The code runs without recording gradients, and outside every mode that the loop has set. It leaves no exception behind.
A failure in it is a warning, never an error.
"""

import functools
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes


class RecordingWarning(UserWarning):
    """Warning that a recording lacks something, or everything."""


@contextmanager
def aside() -> Iterator[None]:
    """Run the block without gradients, and without the default device and modes that the loop has set.

    Such modes, for example, count operations or fake tensors. Tensors made in inference mode can be read in the block.
    NumPy does not raise in it, whatever ``np.seterr`` says.
    """
    with ExitStack() as stack:
        stack.enter_context(torch._C.DisableTorchFunction())  # first: a mode of the loop would see torch.no_grad
        stack.enter_context(torch.no_grad())
        stack.enter_context(np.errstate(all="ignore"))
        if torch._C._len_torch_dispatch_stack():
            stack.enter_context(_disable_current_modes())
        yield


@contextmanager
def unnoticed() -> Iterator[None]:
    """Drop an error of the block, but for one that a signal handler of the loop has raised in it."""
    try:
        yield
    except Exception as error:
        if raised_by_a_signal(error):
            raise


def raised_by_a_signal(error: BaseException) -> bool:
    """Return whether a signal handler raised ``error``, as a timeout by ``signal.alarm`` does.

    Python runs a handler wherever the main thread is, which may be in the recorder's code. The error is for the loop.
    """
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {code for handler in handlers if (code := _code_of(handler)) is not None}
    return any(frame.f_code in codes for frame, _ in traceback.walk_tb(error.__traceback__))


def _code_of(handler: Any) -> CodeType | None:
    """Return the code that runs first when ``handler`` is called; ``None`` if it is no Python."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    found = getattr(getattr(handler, "__func__", handler), "__code__", None)
    if found is None:
        found = getattr(getattr(type(handler), "__call__", None), "__code__", None)  # noqa: B004  # its code is read
    return found if isinstance(found, CodeType) else None


def warn(sentence: str) -> None:
    """Warn, and never raise. If warnings are errors, print the sentence to standard error instead."""
    try:
        warnings.warn(sentence, RecordingWarning, stacklevel=2)
    except Exception:
        with suppress(Exception):
            print(f"gradparity: {sentence}", file=sys.stderr)


def capturing() -> bool:
    """Return whether a CUDA graph is being captured; reading a tensor on the host would abort the capture."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
