"""Models that DDP keeps the same on all ranks, and the exchanges of gradients that they ask for."""

import weakref

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gradparity.trace.process_rank import world_size


class Replicas:
    """The models of this process that are wrapped in DDP, by weak reference."""

    def __init__(self) -> None:
        self._wrappers: list[weakref.ref[DistributedDataParallel]] = []

    def note(self, module: nn.Module) -> None:
        """Take up ``module`` if it is DDP's wrapper."""
        if isinstance(module, DistributedDataParallel) and all(ref() is not module for ref in self._wrappers):
            self._wrappers.append(weakref.ref(module))

    def exchange(self, reached: set[int]) -> bool | None:
        """Return whether DDP's last forward has asked for an exchange of the gradients of these leaves, by ``id``.

        Return ``None`` if this process trains alone.
        """
        if world_size() < 2:
            return None
        alive = [module for ref in self._wrappers if (module := ref()) is not None]
        asked = [
            module.require_forward_param_sync for module in alive if any(id(p) in reached for p in module.parameters())
        ]
        return bool(asked) and all(asked)

    def parameters(self) -> set[int]:
        """Return the parameters, by ``id``, whose gradients DDP promises to be the same on all ranks."""
        found: set[int] = set()
        for ref in self._wrappers:
            module = ref()
            if module is not None and not module._comm_hooks:  # a hook may exchange later, or something else
                own = module.module.named_parameters()
                found |= {id(p) for name, p in own if name not in module.parameters_to_ignore}
        return found
