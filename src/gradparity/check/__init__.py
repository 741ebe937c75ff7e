"""A user's loop looked up among the known faults: ``gradparity check``.

Read in this order: ``observe`` (the loop under the stress scenario), ``probe`` (all that is seen of it), ``lookup``
(which fault behaves the same), ``parametric_faults`` (faults with a number in them), ``rounding``, ``report`` (the
answer), ``command``. What else can be wrong: ``uncheckable``, ``swapped_inputs``, ``global_state``, ``graph_leaks``;
``oracle`` checks the first gradient in float64. ``rank_*`` is the same on several ranks.
"""
