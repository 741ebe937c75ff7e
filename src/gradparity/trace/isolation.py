"""Run code of ours in the middle of a training, so that the training does not notice.

It runs without recording gradients and outside of every mode that the loop has set, it leaves no exception behind, and
what goes wrong in it is a warning, never an error.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes


class RecordingWarning(UserWarning):
    """A recording lacks something, or all."""


@contextmanager
def aside() -> Iterator[None]:
    """Compute in the block as if the loop had set nothing: no gradients, default device, or mode that counts or fakes.

    Tensors made in inference mode can be read in it. NumPy does not raise here, whatever ``np.seterr`` says.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch._C.DisableTorchFunction())
        stack.enter_context(np.errstate(all="ignore"))
        if torch._C._len_torch_dispatch_stack():
            stack.enter_context(_disable_current_modes())
        yield


def warn(sentence: str) -> None:
    """Warn, and never raise: where warnings are errors, the sentence goes to standard error."""
    try:
        warnings.warn(sentence, RecordingWarning, stacklevel=2)
    except Exception:
        with suppress(Exception):
            print(f"gradparity: {sentence}", file=sys.stderr)


def capturing() -> bool:
    """Return whether a CUDA graph is being captured: to read a tensor on the host would break it off."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
