"""Wrong loops, each a small change to the reference, that a check must be able to tell from it.

In reading order: ``fault`` (what one is), ``stress`` (the training under which they show), ``dictionary`` (all of them;
the other files hold them by theme), ``patched`` (the reference compiled with faults in it).
"""

from gradparity.faults.dictionary import FAULTS
from gradparity.faults.fault import Fault, Kind
from gradparity.faults.patching import loop_with

__all__ = ["FAULTS", "Fault", "Kind", "loop_with"]
