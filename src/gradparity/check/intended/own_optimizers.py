"""Optimizers that a loop builds itself for the model that it was given, and the reference with the same ones.

The reference can be given them if they are PyTorch's own and their hyperparameters are plain values. It follows a
schedule of the loop's own by setting the hyperparameters that the loop's optimizers had at each step.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise
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

    steps: tuple[str, ...] = ()
    """The hyperparameters of all groups at each step, as Python code; empty if they never change."""
    later: tuple[tuple[int, tuple[str, ...], str], ...] = ()
    """The groups that are added to it later, each with the number of steps before it, its parameters and the rest."""

    @property
    def names(self) -> set[str]:
        """Return the names of all parameters that it ever holds."""
        return {name for names, _ in self.groups for name in names} | {n for _, names, _ in self.later for n in names}

    @property
    def code(self) -> str:
        """Return the call that builds it for a ``model``."""
        return f"torch.optim.{self.kind}([{', '.join(_group(*group) for group in self.groups)}])"

    @property
    def code_that_follows(self) -> str:
        """Return the call that builds it so that it changes as the loop's did."""
        later = ", ".join(f"({number}, {_group(names, values)})" for number, names, values in self.later)
        return f"follow_steps({self.code}, [{', '.join(self.steps)}], [{later}])"


def _group(names: tuple[str, ...], values: str) -> str:
    return f"{{'params': [dict(model.named_parameters())[n] for n in {names!r}], **{values}}}"


def with_its_steps(found: Sequence[OwnOptimizer]) -> OwnOptimizer:
    """Return an optimizer with the hyperparameters that it had at each step, given as it was at each of them."""
    steps = tuple(f"[{', '.join(values for _, values in one.groups)}]" for one in found)
    later = tuple(
        (number, *group)
        for number, (before, one) in enumerate(pairwise(found), start=1)
        for group in one.groups[len(before.groups) :]
    )
    return replace(found[0], steps=steps, later=later) if len(set(steps)) > 1 else found[0]


def follow_steps(
    optimizer: Optimizer, steps: Iterable[Sequence[dict[str, Any]]], later: Sequence[tuple[int, dict[str, Any]]] = ()
) -> Optimizer:
    """Return the optimizer, which changes before it makes a step as another one did.

    Args:
        optimizer: the optimizer.
        steps: the hyperparameters of all its groups at each step.
        later: groups to add, each with the number of steps before it.
    """
    left, made = iter(steps), count()

    def follow(*_: object) -> None:
        number = next(made)
        for group in (group for at, group in later if at == number):
            optimizer.add_param_group(group)
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
    built = ", ".join(one.code_that_follows for one in optimizers)
    return training_with(
        "own-optimizers", f"[{built}]", "from gradparity.check.intended.own_optimizers import follow_steps"
    )


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
