"""The reference and all faults as observed under the stress scenario, each observed once per process."""

from gradparity.studies.fault_scores.score import PRECISION
from gradparity.studies.fault_scores.score import observe_fault as known
from gradparity.studies.fault_scores.score import observe_faults as see

__all__ = ["PRECISION", "known", "see"]
