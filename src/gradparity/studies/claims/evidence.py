"""What a claim is, and what comes of examining it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import torch


class Verdict(StrEnum):
    """How a sentence, read word for word, stands up to what was measured."""

    HOLDS = "holds"
    CAVEAT = "holds with a caveat"
    """True of what it names, but under a condition that it does not."""
    FAILS = "fails as written"
    """Not so; or the code that it shows raises."""


@dataclass(frozen=True)
class Evidence:
    """What was found of a claim, here and now."""

    verdict: Verdict
    figure: str
    """What was measured, in words with its numbers."""
    instead: str = ""
    """What to write or say in place of the claim."""
    torch: str = torch.__version__
    """The release it was found on."""


Claim: TypeAlias = Callable[[], Evidence]
"""A function that carries the claim as its docstring, measures, and judges."""


def judge(holds: bool, caveat: bool = False) -> Verdict:
    """The verdict on a sentence that ``holds`` or not, and if so perhaps only under a ``caveat``.

    >>> judge(holds=True, caveat=True).value
    'holds with a caveat'
    """
    if not holds:
        return Verdict.FAILS
    return Verdict.CAVEAT if caveat else Verdict.HOLDS


def name_of(claim: Claim) -> str:
    """What the claim is called in tables and on the command line."""
    return claim.__name__.replace("_", "-")


def sentence_of(claim: Claim) -> str:
    """The claim itself, on one line."""
    return " ".join((inspect.getdoc(claim) or "").split())
