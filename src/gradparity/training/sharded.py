"""The manual route where FSDP2 (``fully_shard``) leaves only a shard of each parameter on each rank.

What the optimizer holds are shards, DTensors; what a forward computes with are whole parameters, which FSDP gathers
before it and gives up after it. The graph leads to the whole ones, so ``autograd.grad`` finds the shards unused. FSDP
averages and scatters gradients in the hooks of a ``.backward()``, which ``autograd.grad`` does not call.

Three things make the route whole again, with nothing but public functions: differentiate by the whole parameters, seen
in the forward; add their gradients up over the window; at its end average and scatter them, once. On two ranks it
gives the bits of ``.backward()``. It costs what FSDP saves: between microbatches, each rank holds whole gradients.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial


@contextmanager
def whole_parameters(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect, by name, the whole parameters that forwards in the block compute with; each forward has its own."""
    whole: dict[str, Tensor] = {}

    def look(prefix: str, module: nn.Module, _: Any) -> None:
        for name, p in module.named_parameters(prefix, recurse=False):
            whole[name] = p

    with ExitStack() as stack:
        for prefix, module in model.named_modules():
            # Called after FSDP's own hook, which puts the whole parameters into the module.
            stack.callback(module.register_forward_pre_hook(partial(look, prefix)).remove)
        yield whole


def accumulate(loss: Tensor, whole: Mapping[str, Tensor], gradients: dict[str, Tensor]) -> None:
    """Add this rank's gradient of ``loss`` by the ``whole`` parameters into ``gradients``. Not collective by itself.

    FSDP may have given up the parameters' memory; it gathers them again when the gradient needs them.
    """
    names = [name for name, p in whole.items() if p.requires_grad]
    found = torch.autograd.grad(loss, [whole[name] for name in names], allow_unused=True)
    for name, g in zip(names, found, strict=True):
        if g is not None:
            gradients[name] = gradients[name] + g if name in gradients else g


def scatter(model: nn.Module, gradients: Mapping[str, Tensor]) -> None:
    """Give each shard its piece of the average over ranks. Collective: all ranks have the same names."""
    for name, p in model.named_parameters():
        if name in gradients:
            assert isinstance(p, DTensor)
            everyone = DTensor.from_local(gradients[name], p.device_mesh, [Partial("avg")])
            p.grad = everyone.redistribute(placements=p.placements)  # a reduce-scatter
