"""The fault, or the few faults together, with which the reference behaves as a loop does.

Read in this order: ``fault_lookup``, ``effects``, ``likely_pairs`` and ``several_faults`` (faults that behave the same
together), ``tries`` and ``seen_runs`` (known faults run on all cores, and remembered), ``kept_runs`` and
``environment`` (from one check to the next), ``parametric_faults`` (faults with a number in them), ``rounding`` with
``step_norms`` and ``close_records`` (the same but for rounding), ``fault_lookup_on_ranks``.
"""
