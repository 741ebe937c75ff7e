"""The cost of the two routes, lockstep and recording: ratios within one run, since seconds differ between machines.

Read in this order: ``clock`` and ``memory`` (how to measure), ``subjects`` (the models), ``routes``, ``watching``,
``throughput``, ``growth``, ``scale`` and ``imports`` (what is measured), and ``parts``, which combines each of these
with its ``tables`` and ``picture``.
"""
