"""Tensors of any kind, taken apart into the plain dense tensors that hold their content."""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_PLAIN: Final = (Tensor, nn.Parameter)

COMPRESSED: Final = {
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


def pieces(tensor: Tensor) -> dict[str, Tensor] | None:
    """Return the plain dense tensors that hold the content of ``tensor``, by name; ``None`` if it cannot be read.

    A plain dense tensor is its own only piece, named ``""``. A sparse one has indices and values, a quantized one
    integers, scales and zero points, a wrapper such as DTensor what it wraps. Nothing is copied, but of conjugated,
    negated, quantized and MKLDNN tensors. There is no content in meta, fake, lazy, and freed tensors (as FSDP keeps
    them), and none that is known in a class with a ``__torch_dispatch__`` of its own that does not say what it wraps.
    """
    try:
        return {"": tensor.detach()} if is_simple(tensor) else _pieces(tensor)
    except Exception:  # a class that we have never seen: no reason to end somebody's training
        return None


def is_simple(tensor: Tensor) -> bool:
    """Whether ``tensor`` is its own only piece, memory and content alike: most are."""
    return (
        type(tensor) in _PLAIN
        and tensor.layout == torch.strided
        and not (tensor.is_meta or tensor.is_quantized or tensor.is_nested or tensor.is_conj() or tensor.is_neg())
        and not any(getattr(tensor, "names", ()))  # torch 2.13 has no named tensors any more
        and has_memory(tensor)
    )


def is_readable(tensor: Tensor) -> bool:
    """Whether ``tensor`` has content that can be read."""
    return pieces(tensor) is not None


def _pieces(tensor: Tensor) -> dict[str, Tensor] | None:
    if is_lazy(tensor) or tensor.is_meta:
        return None
    if tensor.is_nested:
        return _together({f"[{i}]": part for i, part in enumerate(tensor.detach().unbind())})
    if type(tensor) not in _PLAIN:
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
    """The pieces of all ``parts``."""
    found: dict[str, Tensor] = {}
    for name, part in parts.items():
        inner = pieces(part)
        if inner is None:
            return None
        found |= {f"{name}.{piece}" if piece else name: tensor for piece, tensor in inner.items()}
    return found


def _is_opaque(tensor: Tensor) -> bool:
    """Whether operations on ``tensor`` are those of its class, so that its memory need not be its content."""
    return type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__


def _without_class(tensor: Tensor) -> Tensor:
    """The same memory as a plain tensor, without a call of the class's ``__torch_function__``."""
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(Tensor)


def is_wrapper(tensor: Tensor) -> bool:
    """Whether ``tensor`` says which tensors it wraps."""
    return bool(is_traceable_wrapper_subclass(tensor))


def wrapped_by(tensor: Any) -> dict[str, Tensor]:
    """The tensors that a wrapper such as DTensor keeps, by their names in it."""
    if hasattr(tensor, "trigger_wait"):  # the result of a collective that may be under way
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
    """Whether the storage holds all elements of a strided tensor: FSDP frees it, and to read it then is a crash."""
    if tensor.is_contiguous():
        end = tensor.storage_offset() * tensor.element_size() + tensor.nbytes
    else:
        last = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        end = (tensor.storage_offset() + last) * tensor.element_size()
    return not tensor.numel() or end <= tensor.untyped_storage().nbytes()


def layout_of(tensor: Tensor) -> str:
    """How the content is kept, in words: ``dense``, a kind of sparse, or why there is no content."""
    if is_lazy(tensor):
        return "not initialized"
    if tensor.is_meta:
        return "on meta, without content"
    if tensor.is_nested:
        return "nested"
    if type(tensor) not in _PLAIN and _is_opaque(tensor):
        return type(tensor).__qualname__
    if tensor.is_quantized:
        return f"quantized, {tensor.qscheme()}".replace("torch.", "")
    if tensor.is_sparse:
        return "sparse, coalesced" if tensor.is_coalesced() else "sparse, not coalesced"
    return "dense" if tensor.layout == torch.strided else str(tensor.layout).removeprefix("torch.").lstrip("_")


def shape_of(tensor: Tensor) -> tuple[Any, ...] | None:
    """The shape, where it is known; the sizes of a nested tensor are those of its pieces."""
    if is_lazy(tensor) or tensor.is_nested:
        return None
    return tuple(tensor.shape)
