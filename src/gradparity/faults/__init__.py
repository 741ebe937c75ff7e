"""Known bugs of training loops, each a patch to the reference step.

Read in this order: ``fault`` (the definition), ``catalogue/`` (all faults, one file per theme), ``all_faults`` (all by
name), ``patching`` (the reference with a fault in it), ``stress_scenario`` (the training in which faults show).
``on_ranks``, ``patching_on_ranks`` and ``stress_scenario_on_ranks`` are the same for several ranks, ``how_to_fix``
reverses a patch, ``custom_fault`` is for loops outside the dictionary.
"""

from gradparity.faults.all_faults import FAULTS
from gradparity.faults.fault import Change, Fault, FaultKind
from gradparity.faults.patching import loop_with

__all__ = ["FAULTS", "Change", "Fault", "FaultKind", "loop_with"]
