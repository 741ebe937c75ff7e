"""The reference on several ranks, recompiled with faults in it: faults of one rank, of several, or of both.

A patch finds its place by the lines around it. The step on several ranks has all the lines of the step on one. If it
has more lines in the middle of such a place, the fault does not fit, and is left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from gradparity.faults.fault import Change
from gradparity.faults.patching import REFERENCE_FUNCTIONS, Namespace, reference_with
from gradparity.faults.stress_scenario_on_ranks import build_on_ranks, reference_on_ranks
from gradparity.training import train_step
from gradparity.training.distributed import ddp_step, manual_step

REFERENCE_ON_RANKS: tuple[Callable[..., Any], ...] = (
    *REFERENCE_FUNCTIONS,
    manual_step,
    ddp_step,
    build_on_ranks,
    reference_on_ranks,
)
"""The functions and classes that a fault may change on several ranks."""


def on_ranks_with(faults: Sequence[Change]) -> Namespace:
    """Return the functions of the reference on ranks by name, with ``faults`` in them.

    ``train_step`` is ``manual_step`` there.

    Raises:
        ClashError: if two of the faults cannot be combined.
        ValueError: if the lines of a fault are not there.
    """
    names = reference_with([_of_ranks(fault) for fault in faults], REFERENCE_ON_RANKS)
    names["train_step"] = names["manual_step"]
    return names


def _of_ranks(fault: Change) -> Change:
    """Return ``fault`` with its changes to the step on one rank moved to the step on several."""
    return replace(fault, changes={manual_step if f is train_step else f: patch for f, patch in fault.changes.items()})
