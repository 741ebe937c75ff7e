"""A note of each read of a tensor's value by the code that watches a training: on a GPU it would wait."""

import traceback
from contextlib import contextmanager

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gradparity.trace import harmless_hooks, late_digests

_OPERATIONS = ("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "unique", "masked_select", "allclose")
_METHODS = ("numpy", "cpu", "tolist", "item", "__repr__", "__bool__", "__float__", "__int__", "__format__", "__array__")


def noted_reads(monkeypatch):
    """Return a list to which each read is added, as the name of the function and the lines of ours that led to it.

    Tensors are those of ``slow_gpu.make_late``: its digests may be computed, but not be waited for.
    """
    found, watching, hashing = [], [], []

    def note(name):
        if watching and not hashing:
            lines = [f"{f.filename}:{f.lineno}" for f in traceback.extract_stack() if "/src/gradparity/" in f.filename]
            found.append((name, *lines[::-1][:6]))

    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            if operation._schema.name.split("::")[1] in _OPERATIONS:
                note(operation._schema.name)
            return operation(*args, **(kwargs or {}))

    aside = harmless_hooks.aside

    @contextmanager
    def noted():
        with aside(), Mode():
            watching.append(True)
            try:
                yield
            finally:
                watching.pop()

    def unseen(function, before=lambda self: None):
        def around(self, *args):
            before(self)
            hashing.append(True)
            try:
                return function(self, *args)
            finally:
                hashing.pop()

        return around

    def waits(digests):
        if any(batch.written is not None and not batch.written.happened for batch in digests._batches):
            note("a wait")

    monkeypatch.setattr(harmless_hooks, "aside", noted)
    for name in _METHODS:
        monkeypatch.setattr(Tensor, name, _noting(getattr(Tensor, name), name, note))
    monkeypatch.setattr(late_digests, "_start", unseen(late_digests._start))
    monkeypatch.setattr(late_digests.LateDigests, "get", unseen(late_digests.LateDigests.get, waits))
    return found


def _noting(method, name, note):
    def noting(self, *args, **kwargs):
        note(name)
        return method(self, *args, **kwargs)

    return noting
