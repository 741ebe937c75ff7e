"""The reference and all faults as observed under the stress scenario, each observed once per process."""

from functools import partial

from gradparity.check.lookup import fault_lookup
from gradparity.studies.fault_scores.score import PRECISION, memory_of
from gradparity.studies.fault_scores.score import observe_fault as known
from gradparity.studies.fault_scores.score import observe_faults as see

__all__ = ["PRECISION", "known", "look_up", "see"]

look_up = partial(fault_lookup.look_up, memory=memory_of(PRECISION))
"""A lookup in the precision of all these, with the runs of the lookups before it."""
