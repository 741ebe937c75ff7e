"""The reference and all faults as observed under the stress scenario, each observed once a process."""

from gradparity.studies.fault_scores.score import observe as see
from gradparity.studies.fault_scores.score import observed as known

__all__ = ["known", "see"]
