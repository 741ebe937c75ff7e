"""Wrong loops, each a small change to the reference, that a check must be able to tell from it."""

from gradparity.faults.dictionary import FAULTS
from gradparity.faults.fault import Fault, loop_with

__all__ = ["FAULTS", "Fault", "loop_with"]
