"""Tensors of any kind, split into the plain dense tensors that hold their content."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

PLAIN: Final = frozenset({Tensor, nn.Parameter})
"""Classes whose operations are PyTorch's own."""

COMPRESSED: Final = {
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


def pieces(tensor: Tensor) -> dict[str, Tensor] | None:
    """Return the plain dense tensors that hold the content of ``tensor``, by name; ``None`` if it cannot be read.

    A plain dense tensor is its own only piece, named ``""``. A sparse tensor has indices and values, a quantized one
    integers, scales and zero points. A wrapper such as DTensor has the tensors that it wraps. Only conjugated, negated,
    quantized and MKLDNN tensors are copied.

    Meta, fake, lazy and freed tensors (as FSDP keeps them) have no content. A class with its own
    ``__torch_dispatch__`` that does not list the tensors it wraps has no content that can be read.
    """
    try:
        return {"": tensor.detach()} if is_simple(tensor) else _pieces(tensor)
    except Exception:  # an unknown class must not end the user's training
        return None


def is_simple(tensor: Tensor) -> bool:
    """Return whether ``tensor`` is its own only piece, so that its memory is its content, as for most tensors."""
    return (
        type(tensor) in PLAIN
        and tensor.layout == torch.strided
        and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested or tensor.is_neg())
        and not (tensor.dtype.is_complex and tensor.is_conj())
        and not (HAS_NAMES and any(getattr(tensor, "names", ())))
        and has_memory(tensor)
    )


HAS_NAMES: Final = hasattr(Tensor, "names")
"""False from torch 2.13 on, which has no named tensors any more."""


def is_readable(tensor: Tensor) -> bool:
    """Return whether ``tensor`` has content that can be read."""
    return pieces(tensor) is not None


def _pieces(tensor: Tensor) -> dict[str, Tensor] | None:
    if is_lazy(tensor) or tensor.is_meta:
        return None
    if tensor.is_nested:
        return _together({f"[{i}]": part for i, part in enumerate(tensor.detach().unbind())})
    if type(tensor) not in PLAIN:
        if not _is_opaque(tensor):
            tensor = _without_class(tensor)
        elif is_wrapper(tensor):
            return _together(wrapped_by(tensor))
        else:
            return None
    tensor = tensor.detach()
    if tensor.is_quantized:
        return _of_quantized(tensor)
    if tensor.layout == torch.strided:
        return {"": _dense(tensor)} if has_memory(tensor) else None
    if tensor.is_sparse:
        return _together({"indices": tensor._indices(), "values": tensor._values()})
    if tensor.layout in COMPRESSED:
        return _together({name: getattr(tensor, name)() for name in COMPRESSED[tensor.layout]})
    if tensor.is_mkldnn:
        return _together({"dense": tensor.to_dense()})
    return None


def _together(parts: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Return the pieces of all ``parts``; ``None`` if one cannot be read."""
    found: dict[str, Tensor] = {}
    for name, part in parts.items():
        inner = pieces(part)
        if inner is None:
            return None
        found |= {f"{name}.{piece}" if piece else name: tensor for piece, tensor in inner.items()}
    return found


def _is_opaque(tensor: Tensor) -> bool:
    """Return whether the class of ``tensor`` defines its own operations, so that its memory need not be its content."""
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def _without_class(tensor: Tensor) -> Tensor:
    """Return the same memory as a plain tensor, without calling the class's ``__torch_function__``."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(Tensor)


def is_wrapper(tensor: Tensor) -> bool:
    """Return whether ``tensor`` lists the tensors that it wraps."""
    return bool(is_traceable_wrapper_subclass(tensor))


def wrapped_by(tensor: Any) -> dict[str, Tensor]:
    """Return the tensors that a wrapper such as DTensor holds, by their names in it."""
    if hasattr(tensor, "trigger_wait"):  # the result of a collective that may still be running
        tensor.trigger_wait()
    return {name: getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]}


def _of_quantized(tensor: Tensor) -> dict[str, Tensor]:
    if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        scale, zero = torch.tensor(tensor.q_scale(), dtype=torch.float64), torch.tensor(tensor.q_zero_point())
    else:
        scale, zero = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return {"integers": tensor.int_repr(), "scale": scale, "zero point": zero}


def _dense(tensor: Tensor) -> Tensor:
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    named: Any = tensor if any(getattr(tensor, "names", ())) else None  # torch 2.13 has no named tensors any more
    return tensor if named is None else named.rename(None)


def has_memory(tensor: Tensor) -> bool:
    """Return whether the storage holds all elements of a strided tensor: FSDP frees it, and reading it then crashes."""
    size = tensor.untyped_storage().nbytes()
    if tensor.is_contiguous():
        start = tensor.storage_offset()
        return (start * tensor.element_size() if start else 0) + tensor.nbytes <= size or not tensor.numel()
    last = tensor.storage_offset() + stretch(tensor.shape, tensor.stride())
    return not tensor.numel() or last * tensor.element_size() <= size


def stretch(shape: Sequence[int], strides: Sequence[int]) -> int:
    """Return the number of elements in memory from the first to the last one of a strided tensor; 0 without any."""
    return 1 + sum((size - 1) * step for size, step in zip(shape, strides, strict=True)) if 0 not in shape else 0


def layout_of(tensor: Tensor) -> str:
    """Return how the content is stored, in words: ``dense``, a kind of sparse, or why there is no content."""
    if is_lazy(tensor):
        return "not initialized"
    if tensor.is_meta:
        return "on meta, without content"
    if tensor.is_nested:
        return "nested"
    if type(tensor) not in PLAIN and _is_opaque(tensor):
        return type(tensor).__qualname__
    if tensor.is_quantized:
        return f"quantized, {tensor.qscheme()}".replace("torch.", "")
    if tensor.is_sparse:
        return "sparse, coalesced" if tensor.is_coalesced() else "sparse, not coalesced"
    return "dense" if tensor.layout == torch.strided else str(tensor.layout).removeprefix("torch.").lstrip("_")


def shape_of(tensor: Tensor) -> tuple[Any, ...] | None:
    """Return the shape, or ``None`` if it is not known; a nested tensor has no single shape, only its pieces do."""
    if is_lazy(tensor) or tensor.is_nested:
        return None
    return tuple(tensor.shape)
