"""The modules and parameters of this process, known from the moment they are put together.

PyTorch calls a hook whenever a module gets a parameter or a child. From that follow the names of parameters, which
parameters stand in one model, and which of them came after an optimizer had been built.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torchs
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from gradparity.auditing.events import Modes
from gradparity.auditing.facts import Retrained
from gradparity.auditing.watching.frozen_batch_norms import FrozenNorms
from gradparity.auditing.watching.later import later
from gradparity.auditing.watching.parameters_without_optimizer import Origin
from gradparity.auditing.watching.replicas import Replicas
from gradparity.auditing.watching.tensor_keys import TensorKeys
from gradparity.auditing.watching.user_lines import Line
from gradparity.parity.bits import same_bits
from gradparity.parity.dense_parts import is_simple
from gradparity.trace.harmless_hooks import Guard

_TWO_FACED = (_BatchNorm, _DropoutNd)
"""Layers that compute differently in evaluation."""
SMALL = 1 << 12
"""Elements of a tensor that stands in a module in the place of a parameter, at most."""


class Modules:
    """Modules that were put together, by weak reference: nothing is kept alive."""

    def __init__(self) -> None:
        self._modules: dict[int, weakref.ref[nn.Module]] = {}
        self._children: dict[int, weakref.ref[nn.Module]] = {}
        self.key = TensorKeys()
        self._born: dict[int, int] = {}
        """For each parameter, the number of its registration."""
        self._clock = 0
        self._built: dict[int, int] = {}
        """For each parameter in an optimizer, when the optimizer was built."""
        self._frozen: dict[int, int] = {}
        """For each parameter that required no gradient when an optimizer of its model was built: when."""
        self.reached_at: dict[int, tuple[Line, int]] = {}
        """For each leaf that got gradients: the line of the first backward, and their number."""
        self._first: dict[int, tuple[Tensor, int]] = {}
        """For each of these that is in no module: a copy of its first values, and the version of its first gradient."""
        self._evaluated: dict[int, Line] = {}
        """For each module whose own ``eval()`` was called last, and not its own ``train()``: the line."""
        self._retrained: dict[int, tuple[Line, Line, int]] = {}
        self.replicas = Replicas()
        self.norms = FrozenNorms()

    def add(self, model: nn.Module) -> None:
        """Take up a model that was built before the watching began."""
        for module in model.modules():
            self._know(module)
            self._children |= {id(child): weakref.ref(child) for child in module.children()}

    def _know(self, module: nn.Module) -> None:
        known = self._modules.get(id(module))
        if known is None or known() is not module:  # the id may have been another module's
            self._modules[id(module)] = weakref.ref(module)
            self.replicas.note(module)
            self._evaluated.pop(id(module), None)
            self._retrained.pop(id(module), None)

    def meet(self, model: nn.Module) -> None:
        """Take up a model that nobody registered, such as a deep copy."""
        known = self._modules.get(id(model))
        if known is None or known() is not model:
            self.add(model)

    @contextmanager
    def watching(self, guard: Guard) -> Iterator[None]:
        """Follow what is registered in the block."""

        def parameter(module: nn.Module, name: str, value: Any) -> None:
            guard.run(self._parameter, module, value)

        def child(module: nn.Module, name: str, value: Any) -> None:
            guard.run(self._child, module, value)

        handles = [
            torchs.register_module_parameter_registration_hook(parameter),
            torchs.register_module_module_registration_hook(child),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _parameter(self, module: nn.Module, value: Any) -> None:
        self._clock += 1
        self._know(module)
        if value is not None:
            self._born[self.key(value)] = self._clock

    def _child(self, module: nn.Module, value: Any) -> None:
        self._clock += 1
        self._know(module)
        if value is not None:
            self._know(value)
            self._children[id(value)] = weakref.ref(value)

    def optimizer_built(self, parameters: Iterable[Tensor]) -> None:
        """Note when an optimizer with these parameters was built."""
        self._clock += 1
        held = {self.key(p) for p in parameters}
        self._built |= dict.fromkeys(held, self._clock)
        for root in self.roots():
            own = list(root.parameters())
            if any(self.key(p) in held for p in own):
                self._frozen |= {self.key(p): self._clock for p in own if not p.requires_grad}

    def reached(self, leaves: Iterable[Tensor], line: Line) -> None:
        """Note that a backward at ``line`` wrote gradients of these tensors."""
        for leaf in leaves:
            key = self.key(leaf)
            first, times = self.reached_at.get(key, (line, 0))
            self.reached_at[key] = first, times + 1
            if not times and key not in self._born and leaf.numel() <= SMALL and is_simple(leaf):
                self._first[key] = leaf.detach().clone(), 0 if leaf.grad is None else leaf.grad._version

    def stays(self, leaf: Tensor) -> bool:
        """Return whether a leaf that is registered in no module has its first values, and all gradients added up."""
        key = self.key(leaf)
        first, version = self._first.get(key, (None, 0))
        if first is None or leaf.grad is None or leaf.grad._version != version + self.reached_at[key][1] - 1:
            return False
        like = is_simple(leaf) and (leaf.dtype, leaf.shape, leaf.device) == (first.dtype, first.shape, first.device)
        return like and same_bits(first, leaf.detach())

    def mode_set(self, module: nn.Module, training: bool, line: Line) -> None:
        """Note that the loop has called ``train(training)`` of ``module`` at ``line``."""
        self.meet(module)
        self.norms.mode_set(module, training, line)
        if not training:
            self._evaluated[id(module)] = line
            for inner in module.modules():
                self._retrained.pop(id(inner), None)
            return
        self._evaluated.pop(id(module), None)
        self._retrained.pop(id(module), None)
        for inner in module.modules():
            if inner is not module and id(inner) in self._evaluated:
                self._retrained.setdefault(id(inner), (self._evaluated[id(inner)], line, 0))

    def backward_passed_by(self, reached: set[int]) -> None:
        """Count a backward for each module that a ``train()`` from outside has put back, unless the backward trains it.

        Args:
            reached: the ``id`` of each leaf that the backward reaches.
        """
        self.norms.backward()
        for key, (evaluated, trained, times) in list(self._retrained.items()):
            module = self._modules[key]() if key in self._modules else None
            if module is None or any(id(p) in reached for p in module.parameters()):
                del self._retrained[key]
            else:
                self._retrained[key] = evaluated, trained, times + 1

    def retrained(self) -> dict[int, Retrained]:
        """Return the modules that train though the loop called their ``eval()``, if no backward has reached them."""
        names = {id(m): name for root in self.roots() for name, m in root.named_modules()}
        found = {}
        for key, (evaluated, trained, times) in self._retrained.items():
            module = self._modules[key]() if key in self._modules else None
            if module is None or times < 2 or next(module.parameters(), None) is None:
                continue
            if any(isinstance(m, _TWO_FACED) and m.training for m in module.modules()):
                found[key] = Retrained(names.get(key, type(module).__name__), evaluated, trained, times)
        return found

    def _fixed_on_purpose(self, root: nn.Module, inside: Sequence[nn.Module]) -> Iterator[nn.Module]:
        """Yield the modules inside ``root`` whose own ``eval()`` the loop called, and all inside them."""
        for module in inside if self._evaluated else ():
            if module is not root and id(module) in self._evaluated and not module.training:
                yield from module.modules()

    def modes(self, parameters: set[int]) -> Modes | None:
        """Return the modes of the models with any of these parameters, given by ``id``; ``None`` if none is known."""
        roots = [r for r in self.roots() if any(id(p) in parameters for p in r.parameters())]
        if not roots:
            return None
        inside = {root: list(root.modules()) for root in roots}
        fixed = {id(m) for root in roots for m in self._fixed_on_purpose(root, inside[root])}
        judged = [m for modules in inside.values() for m in modules if id(m) not in fixed]
        layers = [m for m in judged if isinstance(m, _TWO_FACED)]
        counts = [m.num_batches_tracked for m in layers if isinstance(m, _BatchNorm)]
        return Modes(
            all(root.training for root in roots),
            sum(not layer.training for layer in layers),
            later(lambda *numbers: int(sum(numbers)), *(count for count in counts if count is not None)),
            len(counts),
            sum(isinstance(m, _DropoutNd) and m.p > 0 for m in self._silenced(inside)),
            sum(not m.training and _asks(type(m).forward) for m in judged),
        )

    def _silenced(self, inside: Mapping[nn.Module, Sequence[nn.Module]]) -> Iterator[nn.Module]:
        """Yield the modules whose own ``eval()`` the loop called, inside a root that trains."""
        for root, modules in inside.items():
            if root.training and self._evaluated:
                yield from (m for m in modules if not m.training and id(m) in self._evaluated)

    @property
    def number(self) -> int:
        """Return the number of modules that were ever known."""
        return len(self._modules)

    def roots(self) -> list[nn.Module]:
        """Return the modules that are in no other one."""
        alive = [(key, ref()) for key, ref in self._modules.items()]
        return [
            module
            for key, module in alive
            if module is not None and (key not in self._children or self._children[key]() is not module)
        ]

    def names(self) -> dict[int, str]:
        """Return the name of each parameter in its model, by ``id``."""
        found: dict[int, str] = {}
        for root in self.roots():
            for name, p in root.named_parameters():
                found.setdefault(id(p), name)
        return found

    def first_built(self, parameters: Iterable[Tensor]) -> int:
        """Return when the first optimizer with any of these parameters was built; 0 if none was."""
        return min((self._built[self.key(p)] for p in parameters if self.key(p) in self._built), default=0)

    def origin(self, p: Tensor, built: int) -> Origin:
        """Return the way in which a parameter came to be in no optimizer of its model, which was built then."""
        born = self._born.get(self.key(p), 0)
        if built and born > built:
            return Origin.LATE
        return Origin.THAWED if self._frozen.get(self.key(p), -1) > born else Origin.UNKNOWN


@cache
def _asks(forward: Callable[..., Any]) -> bool:
    """Return whether the ``forward`` of a module that is none of PyTorch's reads ``self.training``."""
    code = getattr(forward, "__code__", None)
    return code is not None and not forward.__module__.startswith("torch.") and "training" in code.co_names
