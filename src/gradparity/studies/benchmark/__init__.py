"""What the two routes, lockstep and recording cost: ratios within one run, since seconds differ between machines.

In reading order: ``clock`` and ``memory`` (how to measure), ``subjects`` (on what), ``routes``, ``watching``,
``throughput``, ``growth``, ``scale`` and ``imports`` (what is measured), ``parts``, where each meets its ``tables`` and
``picture``.
"""
