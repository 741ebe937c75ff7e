"""The cost of the two routes, lockstep and recording: ratios within one run, since seconds differ between machines.

Read in this order: ``clock`` and ``memory`` (how to measure), ``timed_models`` (the models), ``presentation``, then
``all_parts``, each a measurement with its result: ``routes``, ``watched_steps``, ``watching_cost``, ``throughput``,
``growth``, ``ranks``, ``gpu``.
"""
