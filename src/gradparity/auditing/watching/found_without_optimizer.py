"""The parameters of known models that no optimizer holds, and modules that only look frozen."""

from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor, nn

from gradparity.auditing.watching.found_modules import Modules
from gradparity.auditing.watching.parameters_without_optimizer import (
    NotFrozen,
    Origin,
    Outsider,
    kept_in_lists,
    tensors_kept,
)


def outsiders(modules: Modules, held: set[int]) -> dict[int, Outsider]:
    """Return the parameters, by their number, that backwards have reached and that none of the optimizers holds.

    Args:
        modules: the models of this process.
        held: the number of each parameter in an optimizer.
    """
    found: dict[int, Outsider] = {}
    p: Tensor
    for root in modules.roots():
        mine = list(root.named_parameters())
        beside = _beside(modules, root, held)
        built = modules.first_built(p for _, p in mine)
        for name, p in mine:
            if _is_outside(modules, p, held):
                found.setdefault(modules.key(p), _outsider(modules, name, p, modules.origin(p, built), beside))
    for root in modules.roots():
        beside = _beside(modules, root, held)
        for name, p in _in_lists(root) if beside else ():
            if (known := found.get(modules.key(p))) and known.origin is Origin.UNKNOWN:
                found[modules.key(p)] = replace(known, name=name, origin=Origin.IN_LIST, beside=beside)
        for name, leaf in tensors_kept(root):
            listed = isinstance(leaf, nn.Parameter)
            if _is_outside(modules, leaf, held) and modules.stays(leaf) and (beside or not listed):
                origin = Origin.IN_LIST if listed else Origin.TENSOR
                found.setdefault(modules.key(leaf), _outsider(modules, name, leaf, origin, beside))
    for leaf in modules.key.alive():
        if isinstance(leaf, nn.Parameter) and _is_outside(modules, leaf, held) and modules.stays(leaf):
            name = f"an nn.Parameter of no module, of shape {list(leaf.shape)},"
            found.setdefault(modules.key(leaf), _outsider(modules, name, leaf, Origin.ALONE, ""))
    return found


def not_frozen(modules: Modules) -> dict[int, NotFrozen]:
    """Return the modules, by ``id``, of which the loop set ``requires_grad`` to false and trains all parameters."""
    found = {}
    for root in modules.roots():
        for name, module in root.named_modules():
            if vars(module).get("requires_grad", True) is False:
                own = list(module.parameters())
                if own and all(p.requires_grad and modules.key(p) in modules.reached_at for p in own):
                    line, times = modules.reached_at[modules.key(own[0])]
                    found[id(module)] = NotFrozen(name or type(module).__name__, line, times)
    return found


def _beside(modules: Modules, root: nn.Module, held: set[int]) -> str:
    return next((name for name, p in root.named_parameters() if modules.key(p) in held), "")


def _is_outside(modules: Modules, p: Tensor, held: set[int]) -> bool:
    key = modules.key(p)
    return key in modules.reached_at and key not in held and p.requires_grad and p.grad is not None


def _outsider(modules: Modules, name: str, p: Tensor, origin: Origin, beside: str) -> Outsider:
    line, times = modules.reached_at[modules.key(p)]
    return Outsider(name, tuple(p.shape), line, times, origin, beside)


def _in_lists(root: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for kept in kept_in_lists(root):
        for name, p in kept.module.named_parameters():
            yield f"{kept.name}[...].{name}", p
