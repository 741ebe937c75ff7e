"""Optimizers that a loop builds itself for the model that it was given, and the reference with the same ones.

The reference can be given them if they are PyTorch's own and their hyperparameters are plain values. It follows a
schedule of the loop's own by setting the hyperparameters that the loop's optimizers had at each step.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradparity.faults import Change
from gradparity.faults.stress_scenario import build
from gradparity.training import train_step

_PLAIN = (int, float, bool, str, type(None))


@dataclass(frozen=True)
class OwnOptimizer:
    """An optimizer that the loop has built, as it was at its first step."""

    kind: str
    """The name of its class in ``torch.optim``."""
    groups: tuple[tuple[tuple[str, ...], str], ...]
    """For each group the names of its parameters, and its hyperparameters as Python code."""

    @property
    def code(self) -> str:
        """Return the call that builds it for a ``model``."""
        groups = [
            f"{{'params': [dict(model.named_parameters())[n] for n in {names!r}], **{values}}}"
            for names, values in self.groups
        ]
        return f"torch.optim.{self.kind}([{', '.join(groups)}])"

    steps: tuple[str, ...] = ()
    """The hyperparameters of all groups at each step, as Python code; empty if they never change."""


def with_its_steps(found: Sequence[OwnOptimizer]) -> OwnOptimizer:
    """Return an optimizer with the hyperparameters that it had at each step, given as it was at each of them."""
    steps = tuple(f"[{', '.join(values for _, values in one.groups)}]" for one in found)
    return replace(found[0], steps=steps) if len(set(steps)) > 1 else found[0]


def follow_steps(optimizer: Optimizer, steps: Iterable[Sequence[dict[str, Any]]]) -> Optimizer:
    """Return the optimizer, which sets its hyperparameters to the next of ``steps`` before it makes a step."""
    left = iter(steps)

    def follow(*_: object) -> None:
        for group, values in zip(optimizer.param_groups, next(left, ()), strict=False):
            group.update(values)

    optimizer.register_step_pre_hook(follow)
    return optimizer


def own_optimizer(optimizer: Optimizer, names: Mapping[int, str]) -> OwnOptimizer | None:
    """Return the description of an optimizer; ``None`` if no other can be built from it.

    Args:
        optimizer: the optimizer.
        names: the name of each parameter of the model, by ``id``.
    """
    kind = type(optimizer)
    if getattr(torch.optim, kind.__name__, None) is not kind or kind is torch.optim.LBFGS:  # which needs a closure
        return None
    groups = []
    for group in optimizer.param_groups:
        values = {key: _plain(value) for key, value in group.items() if key not in ("params", "initial_lr")}
        if None in values.values() or any(id(p) not in names for p in group["params"]):
            return None
        code = ", ".join(f"{key!r}: {value}" for key, value in values.items())
        groups.append((tuple(names[id(p)] for p in group["params"]), f"{{{code}}}"))
    return OwnOptimizer(kind.__name__, tuple(groups))


def _plain(value: object) -> str | None:
    """Return a value as Python code; ``None`` if it is not plain."""
    if isinstance(value, Tensor) and value.numel() == 1:
        return f"torch.tensor({value.item()!r}, dtype={value.dtype})"
    if isinstance(value, tuple) and all(isinstance(one, _PLAIN) for one in value):
        return repr(value)
    return repr(value) if isinstance(value, _PLAIN) else None


def with_own_optimizers(optimizers: Iterable[OwnOptimizer]) -> Change:
    """Return the change that makes the reference train with such optimizers, each stepped by the scaler in turn."""
    built = ", ".join(f"follow_steps({one.code}, [{', '.join(one.steps)}])" for one in optimizers)
    return training_with("own-optimizers", f"[{built}]", "from gradparity.check.own_optimizers import follow_steps")


def training_with(name: str, optimizers: str, imports: str) -> Change:
    """Return the change that makes the reference train with other ``optimizers``, a list in Python code."""
    return Change(
        name,
        {
            build: f"""
     optimizer.register_step_post_hook(lambda *_: model.follow())
+    {imports}
+    model.own = {optimizers}
""",
            train_step: """
-    run.scaler.unscale_(run.optimizer)
+    for own in run.model.own:
+        run.scaler.unscale_(own)
@@
-    run.scaler.step(run.optimizer)
+    for own in run.model.own:
+        run.scaler.step(own)
""",
        },
    )
