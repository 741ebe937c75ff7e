"""Isolation of the recorder's code, so that it runs in the middle of a training without any effect on the training.

The code runs without recording gradients, and outside every mode that the loop has set. It leaves no exception behind.
A failure in it is a warning, never an error.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

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
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch._C.DisableTorchFunction())
        stack.enter_context(np.errstate(all="ignore"))
        if torch._C._len_torch_dispatch_stack():
            stack.enter_context(_disable_current_modes())
        yield


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
