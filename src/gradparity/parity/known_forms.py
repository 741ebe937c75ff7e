"""Forms of hundreds of tensors, compared fast with those of the next ones. A form is a dtype, shape, device, ..."""

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import torch
from torch import Tensor

_GUARDS: Final[Any] = getattr(getattr(torch._C, "_dynamo", None), "guards", None)
"""The functions with which PyTorch's compiler compares forms before it runs compiled code; they are not public."""

_FORM: Final = attrgetter("dtype", "shape", "device", "layout", "requires_grad")

_IS_NESTED: Final = attrgetter("is_nested")


class KnownForms:
    """The classes, dtypes, shapes, strides, devices and layouts of tensors, and whether they require gradients.

    Args:
        tensors: strided tensors.

    Raises:
        RuntimeError: for a tensor without strides, such as a sparse or nested one.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._count = len(tensors)
        sizes, strides = [list(t.shape) for t in tensors], [list(t.stride()) for t in tensors]
        if any(tensor.is_nested or tensor.is_sparse for tensor in tensors):
            raise RuntimeError("a tensor without strides")
        self._guards: Any = None
        self._forms: list[object] = []
        if hasattr(_GUARDS, "TensorGuards"):
            self._guards = _GUARDS.TensorGuards(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)
        else:  # this takes five times as long
            self._forms = _forms_of(tensors)

    def match(self, tensors: Sequence[Any]) -> bool:
        """Return whether these are tensors of the known forms, in the same order.

        In a different mode of PyTorch, such as ``inference_mode``, the answer may be no although they are.
        """
        if len(tensors) != self._count:
            return False
        try:
            if any(map(_IS_NESTED, tensors)):  # the compiler's function would end the process: it has no strides
                return False
            return bool(self._guards.check(*tensors)) if self._guards is not None else _forms_of(tensors) == self._forms
        except (RuntimeError, AttributeError, TypeError, ValueError):  # sparse, without content, or no tensor
            return False


def _forms_of(tensors: Sequence[Tensor]) -> list[object]:
    flags = [(tensor.is_neg(), tensor.is_conj()) for tensor in tensors]
    return [*map(type, tensors), *map(_FORM, tensors), *map(Tensor.stride, tensors), *flags]
