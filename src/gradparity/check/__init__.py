"""The ``gradparity check`` command, which looks a user's loop up among the known faults.

Read in this order: ``observe`` (a loop under the stress scenario), ``loop_end``, ``run_in_child`` (all observations of
it), ``intended_reference`` and ``closest_reference`` (the reference that the loop means to be, with
``own_optimizers``, ``own_learning_rates``, ``own_scaler``, ``own_draws`` and ``own_updates``), ``audited`` (what an
audit sees of it), ``changing_lines`` (the lines that wrote what differs), ``judged_updates`` with ``fitted_updates``
and ``update_rules`` (updates that the loop makes itself), ``own_averages`` with ``found_averages``, ``users_stack``,
``without_compiler``, ``fault_lookup`` (the fault that behaves the same), ``effects``, ``likely_pairs`` and
``several_faults`` (faults that behave the same together), ``tries`` and ``seen_runs`` (known faults run on all cores,
and remembered), ``kept_runs`` and ``environment`` (from one check to the next), ``parametric_faults`` (faults with a
number in them), ``rounding`` and ``step_norms``, ``result``, ``report``, ``remarks``, ``check_loop`` (all of it).
Problems other than a fault of a step: ``uncheckable``, ``trained_objects``, ``global_state``, ``graph_leaks``.
``float64_reference`` checks the first gradient in float64. ``rank_*`` does the same on several ranks.
"""

from gradparity.check.check_loop import check
from gradparity.check.fault_lookup import Finding, Match
from gradparity.check.rank_check import check_on_ranks
from gradparity.check.result import CheckResult

__all__ = ["CheckResult", "Finding", "Match", "check", "check_on_ranks"]
