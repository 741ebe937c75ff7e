"""Losses and parameters that ``autograd.grad`` cannot serve, refused before anything is written to ``p.grad``."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node


def refuse(loss: Tensor, leaves: Sequence[nn.Parameter]) -> None:
    """Raise if ``autograd.grad`` would silently leave out a part of what ``.backward()`` adds to ``leaves``.

    The part may be a share of one gradient, as where a weight is used inside and outside a checkpoint. So a gradient
    that comes back proves nothing, and the graph is looked through each time: 0.7 microseconds a node, where forward
    and backward of a node whose tensor holds eight elements take 8.

    Raises:
        RuntimeError: with one sentence that says why.
    """
    if not loss.requires_grad:
        raise RuntimeError("the loss depends on no tensor that requires a gradient")
    trained = set(leaves)
    for p in trained:
        if p.layout != torch.strided or p.is_nested or hasattr(p, "__tensor_flatten__"):
            kind = type(p).__name__ if p.layout == torch.strided else p.layout
            raise RuntimeError(f"gradients by hand need plain dense parameters; with one of {kind} use .backward()")
    for node in custom(nodes_below(loss.grad_fn)):
        names = names_in_backward(node)
        if "backward" not in names or not names & {"enable_grad", "set_grad_enabled"}:
            continue  # it runs no backward of its own
        # PyTorch's checkpoint asks if it may run, and raises. Others do run, but only if they lead to a leaf.
        if "_is_checkpoint_valid" in names or not leads_to(node, trained):
            raise RuntimeError(
                f"{node.name()} runs a backward inside its own, which autograd.grad leaves out; "
                "use .backward(), or if it is a checkpoint, use_reentrant=False"
            )


@contextmanager
def versions_of(leaves: Sequence[nn.Parameter]) -> Iterator[dict[int, int]]:
    """Note the version of each leaf's gradient once the leaf's own hooks have run, if any leaf has a hook."""
    versions: dict[int, int] = {}

    def note(index: int, g: Tensor | None) -> None:
        if g is not None:
            versions[index] = g._version

    hooked = range(len(leaves)) if any(p._backward_hooks for p in leaves) else ()
    notes = [leaves[index].register_hook(partial(note, index)) for index in hooked]
    try:
        yield versions
    finally:
        for hook in notes:
            hook.remove()


def refuse_changed(gradients: Sequence[Tensor | None], versions: dict[int, int]) -> None:
    """Raise if a gradient is no longer what its leaf's own hooks left.

    Raises:
        RuntimeError: with one sentence that says why.
    """
    for index, version in versions.items():
        if (g := gradients[index]) is not None and g._version != version:
            raise RuntimeError(
                "a hook changed in place a gradient that two parameters share; let it return a new tensor"
            )


def nodes_below(start: Node | None) -> set[Node]:
    """Return ``start`` and every node that its gradient flows to."""
    seen: set[Node] = {start} if start else set()
    waiting = list(seen)
    while waiting:
        for below, _ in waiting.pop().next_functions:
            if below is not None and below not in seen:
                seen.add(below)
                waiting.append(below)
    return seen


def custom(nodes: set[Node]) -> list[Node]:
    """Return the nodes that come from a custom ``torch.autograd.Function``."""
    kinds = {kind for kind in {type(node) for node in nodes} if hasattr(kind, "_forward_cls")}
    return [node for node in nodes if type(node) in kinds] if kinds else []


def names_in_backward(node: Node) -> set[str]:
    """Return the names that the backward of a custom Function uses."""
    function: Any = type(node)
    backward = inspect.unwrap(function._forward_cls.backward)
    return names_in(backward.__code__) if inspect.isfunction(backward) else set()


def names_in(code: CodeType) -> set[str]:
    """Return the names that ``code`` uses, and the functions defined in it."""
    return set(code.co_names).union(*(names_in(part) for part in code.co_consts if isinstance(part, CodeType)))


def leads_to(node: Node, leaves: set[nn.Parameter]) -> bool:
    """Return whether gradients flow from ``node`` to one of ``leaves``, so that ``autograd.grad`` runs it."""
    return any(getattr(below, "variable", None) in leaves for below in nodes_below(node))
