"""Known bugs of training loops, each a patch to the reference step.

Read in this order: ``fault`` (what one is), ``catalogue/`` (all of them, a theme a file), ``dictionary`` (by name),
``patching`` (the reference with a fault in it), ``stress`` (the training in which they show). ``*_on_ranks`` is the
same for several ranks, ``how_to_fix`` the patch read backwards.
"""

from gradparity.faults.dictionary import FAULTS
from gradparity.faults.fault import Fault, Kind
from gradparity.faults.patching import loop_with

__all__ = ["FAULTS", "Fault", "Kind", "loop_with"]
