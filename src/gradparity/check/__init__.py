"""The ``gradparity check`` command, which observations a user's loop up among the known faults.

Read in this order: ``observe`` (the loop under the stress scenario), ``probe`` (all observations of it), ``lookup``
(the fault that behaves the same), ``parametric_faults`` (faults with a number in them), ``rounding``, ``report`` (the
answer), ``command``. Problems that are no fault of a step: ``uncheckable``, ``trained_objects``, ``global_state``,
``graph_leaks``. ``oracle`` checks the first gradient in float64. ``rank_*`` does the same on several ranks.
"""
