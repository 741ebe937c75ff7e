"""Tensors that a node of the graph has saved for its backward."""

from typing import Any


class PackedByTheLoopError(RuntimeError):
    """Raised for a tensor that a hook of the loop has packed: only the loop's own backward may unpack it."""


def saved(node: Any, name: str) -> Any:
    """Return the tensor that ``node`` has saved as ``name``; ``None`` if it has saved none there.

    ``saved_tensors_hooks`` packs tensors, as activation offloading and a checkpoint do. To unpack one copies it,
    computes the forward again, or takes it out of a store where the backward no longer finds it.

    Raises:
        PackedByTheLoopError: if a hook has packed it; the hook is not called.
        RuntimeError: if the tensor was freed.
        AttributeError: if such a node saves nothing by this name.
    """
    if getattr(getattr(node, f"_raw_saved_{name}"), "unpack_hook", None) is not None:
        raise PackedByTheLoopError(f"a hook of the loop has packed {name}")
    return getattr(node, f"_saved_{name}")
