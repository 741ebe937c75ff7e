"""The types of a claim, its evidence, and its verdict."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import torch


class ClaimVerdict(StrEnum):
    """The verdict on a sentence, read word for word, after the measurement."""

    HOLDS = "holds"
    CAVEAT = "holds with a caveat"
    """It is true, but under a condition that it does not name."""
    FAILS = "fails as written"
    """It is not true, or its code raises."""


@dataclass(frozen=True)
class Evidence:
    """The result of checking a claim on this machine."""

    verdict: ClaimVerdict
    figure: str
    """The measurement, in words and numbers."""
    instead: str = ""
    """The code or sentence to use in place of the claim."""
    torch: str = torch.__version__
    """The PyTorch release of the measurement."""


Claim: TypeAlias = Callable[[], Evidence]
"""A function whose docstring is the claim; it measures and returns the evidence with a verdict."""


def judge(holds: bool, caveat: bool = False) -> ClaimVerdict:
    """Return the verdict on a sentence that ``holds`` or not; if it holds, perhaps only with a ``caveat``.

    >>> judge(holds=True, caveat=True).value
    'holds with a caveat'
    """
    if not holds:
        return ClaimVerdict.FAILS
    return ClaimVerdict.CAVEAT if caveat else ClaimVerdict.HOLDS


def name_of(claim: Claim) -> str:
    """Return the claim's name in tables and on the command line."""
    return claim.__name__.replace("_", "-")


def sentence_of(claim: Claim) -> str:
    """Return the claim itself, on one line."""
    return " ".join((inspect.getdoc(claim) or "").split())
