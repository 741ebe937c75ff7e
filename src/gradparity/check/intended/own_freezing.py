"""Parameters that a loop freezes, for all of the training or a part of it, and the reference with the same frozen."""

from collections.abc import Sequence

import torch
from torch import nn

from gradparity.check.running.observe import ObservedLoop
from gradparity.faults import Change
from gradparity.faults.stress_scenario import build
from gradparity.parity.state import Part
from gradparity.trace.events import Event

_FROZEN = ".requires_grad"


def frozen(loop: ObservedLoop) -> list[tuple[str, ...]]:
    """Return the names of the frozen parameters at each forward of a loop."""
    modes = (r.parts.get(Part.MODES, {}) for r in loop.trace.records if r.event == Event.FORWARD)
    return [
        tuple(name.removesuffix(_FROZEN) for name in flags if name.endswith(_FROZEN) and ".grad." not in name)
        for flags in modes
    ]


def with_frozen(frozen: Sequence[tuple[str, ...]]) -> Change:
    """Return the change that makes the reference freeze the same parameters before each forward."""
    patch = f"""
     scheduler = warmup_cosine(optimizer, warmup_steps=2, total_steps=EPOCHS * -(-MICROBATCHES // ACCUMULATION_STEPS))
+    from gradparity.check.intended.own_freezing import freeze
+    freeze(model, {list(frozen)!r})
"""
    return Change("own-freezing", {build: patch})


def freeze(model: nn.Module, frozen: Sequence[tuple[str, ...]]) -> None:
    """Make a model freeze, before each forward in a training, the parameters that are due."""
    left = iter(frozen)

    def follow(model: nn.Module, _: object) -> None:
        if model.training and torch.is_grad_enabled() and (due := next(left, None)) is not None:
            for name, p in model.named_parameters():
                p.requires_grad_(name not in due)

    model.register_forward_pre_hook(follow)
