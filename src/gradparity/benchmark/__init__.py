"""What the two routes, lockstep and recording cost: ratios within one run, since seconds differ between machines.

In reading order: ``clock`` and ``memory`` (how to measure), ``routes``, ``watching``, ``throughput``, ``growth`` and
``imports`` (what is measured), ``picture``.
"""
