"""The reference on several ranks, compiled anew with faults in it: of one rank, of several, or of both.

Faults are found by the lines around them, and the step on ranks has all the lines of the step on one. Where it has more
between them, a fault does not fit, and is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gradparity.faults.fault import Fault
from gradparity.faults.patching import REFERENCE, Namespace, reference_with
from gradparity.faults.stress_on_ranks import build_on_ranks, reference_on_ranks
from gradparity.training import train_step
from gradparity.training.distributed import ddp_step, manual_step

ON_RANKS: tuple[Callable[..., Any], ...] = (*REFERENCE, manual_step, ddp_step, build_on_ranks, reference_on_ranks)
"""All that a fault may change there."""


def on_ranks_with(faults: Sequence[Fault]) -> Namespace:
    """The functions of the reference on ranks by name, with ``faults`` in them; its ``train_step`` is ``manual_step``.

    Raises:
        ClashError: if two of the faults do not go together.
        ValueError: if the lines of a fault are not there.
    """
    names = reference_with([of_ranks(fault) for fault in faults], ON_RANKS)
    names["train_step"] = names["manual_step"]
    return names


def of_ranks(fault: Fault) -> Fault:
    """``fault``, with what it changes in the step of one rank changed in the step of several."""
    return replace(fault, changes={manual_step if f is train_step else f: patch for f, patch in fault.changes.items()})
