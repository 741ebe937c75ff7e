"""The words of the user on what was meant: ``--expect accumulation_steps=4,max_norm=1.0``."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from gradparity.errors import UserError

CHOICES = {
    "schedule": ("cosine", "linear", "constant"),
    "precision": ("fp16", "bf16", "fp32"),
    "no_decay": ("vectors",),
    "amsgrad": ("yes", "no"),
}
"""The words that can be said for a name."""


@dataclass(frozen=True)
class Expected:
    """The words of the user on what was meant. ``None`` stands for nothing said.

    Raises:
        UserError: for a word that is not among the choices.
    """

    accumulation_steps: int | None = None
    """Microbatches of an optimizer step; the last one of an epoch may have fewer."""
    max_norm: float | None = None
    """The L2 norm to which all gradients are clipped; 0 if they are not."""
    weight_decay: float | None = None
    """The weight decay of the groups that have one."""
    no_decay: str | None = None
    """``vectors``: parameters of one dimension, which are biases and normalization gains, do not decay."""
    learning_rate: float | None = None
    """The largest learning rate of the watched steps."""
    optimizer_class: str | None = None
    """The class of the optimizer."""
    momentum: float | None = None
    """The momentum of SGD, or the first of Adam's ``betas``."""
    amsgrad: str | None = None
    """``yes`` or ``no``: Adam keeps the largest second moments."""
    precision: str | None = None
    """``fp16``, ``bf16`` or ``fp32``: the precision of the forward, by autocast or of the weights."""
    schedule: str | None = None
    """``cosine``, ``linear`` or ``constant``: the learning rate after its warm-up, over ``total_steps``."""
    warmup_steps: int | None = None
    """Optimizer steps in which the learning rate rises."""
    final_learning_rate: float | None = None
    """The learning rate to which a schedule falls; 0 if it is not said."""
    total_steps: int | None = None
    """Optimizer steps of the whole training, skipped ones included."""
    frozen: int | None = None
    """Parameters of the optimizer that need no gradient."""

    def __post_init__(self) -> None:
        """Refuse a word that is not among the choices."""
        for name, words in CHOICES.items():
            word = getattr(self, name)
            if word not in (None, *words):
                raise UserError(f"{name}={word}: write {name}={' or '.join(words)}")


def expected(text: str) -> Expected:
    """Read ``accumulation_steps=4,max_norm=1.0``.

    Raises:
        UserError: for a name that is not known, a value that is no number, or a word that is not among the choices.
    """
    found: dict[str, Any] = {}
    for item in filter(None, text.split(",")):
        name, _, value = (part.strip() for part in item.partition("="))
        if name not in _KINDS:
            raise UserError(f"--expect knows no {name!r}; it knows {', '.join(_KINDS)}, each as name=value")
        try:
            found[name] = _KINDS[name](value)
        except ValueError:
            kind = "whole number" if _KINDS[name] is int else "number"
            raise UserError(f"--expect {name}={value}: {value!r} is no {kind}; write such as {name}=1") from None
    return Expected(**found)


_KINDS: dict[str, Callable[[str], Any]] = {
    field.name: {"int | None": int, "float | None": float, "str | None": str}[str(field.type)]
    for field in fields(Expected)
}
"""Reads the value of each name."""
