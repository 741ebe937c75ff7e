"""The ``gradparity check`` command, which looks a user's loop up among the known faults.

Read in this order: ``check_loop`` (all of it), ``running`` (the loop is run and observed), ``intended`` (the
reference that it means to be), ``lookup`` (the fault with which the reference behaves the same),
``updates_and_averages`` (what the loop computes beside its gradients), ``presentation`` (the answer). ``rank_check``
and ``rank_worker`` do the same on several ranks.
"""

from gradparity.check.check_loop import check
from gradparity.check.lookup.fault_lookup import Finding, Match
from gradparity.check.presentation.result import CheckResult
from gradparity.check.rank_check import check_on_ranks

__all__ = ["CheckResult", "Finding", "Match", "check", "check_on_ranks"]
