"""Layers of batch normalization that the loop put into evaluation one by one, and that train() puts back."""

import weakref
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gradparity.auditing.watching.user_lines import Line


@dataclass(frozen=True)
class Unfrozen:
    """A layer of batch normalization in training mode again."""

    evaluated: Line
    """The line of its own ``eval()``."""
    trained: Line
    """The line of the ``train()`` of a module around it."""
    backwards: int = 0
    """The number of backwards since, with the layer in training mode."""
    fixed_before: bool = False
    """True if any backward ran while it was in evaluation by its own ``eval()``."""


class FrozenNorms:
    """Follows the calls of ``train()`` and ``eval()``."""

    def __init__(self) -> None:
        self._evaluated: dict[int, Line] = {}
        """For each module, by ``id``, whose own ``eval()`` was called last: the line."""
        self._norms: dict[int, weakref.ref[nn.Module]] = {}
        self._fixed: set[int] = set()
        self._undone: dict[int, Unfrozen] = {}

    def mode_set(self, module: nn.Module, training: bool, line: Line) -> None:
        """Note that the loop has called ``train(training)`` of ``module`` at ``line``."""
        self._undone.pop(id(module), None)
        if not training:
            self._evaluated[id(module)] = line
            if isinstance(module, _BatchNorm):
                self._norms[id(module)] = weakref.ref(module)
            return
        own = self._evaluated.pop(id(module), None)
        for inner in module.modules():
            key = id(inner)
            evaluated = self._evaluated.get(key) if key in self._norms and inner is not module else None
            if evaluated is not None and evaluated != own:  # the same line puts every module into evaluation
                self._undone.setdefault(key, Unfrozen(evaluated, line, fixed_before=key in self._fixed))

    def backward(self) -> None:
        """Note that a backward runs."""
        for key, norm in self._norms.items():
            module = norm()
            if module is None:
                self._undone.pop(key, None)
            elif not module.training:
                self._fixed.add(key)
            elif key in self._undone:
                was = self._undone[key]
                self._undone[key] = Unfrozen(was.evaluated, was.trained, was.backwards + 1, was.fixed_before)

    def undone(self) -> list[Unfrozen]:
        """Return the layers that have trained in several backwards since."""
        return [one for one in self._undone.values() if one.backwards > 1]
