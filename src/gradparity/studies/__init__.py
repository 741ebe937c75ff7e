"""What the scripts in ``experiments/`` need, and nobody else: a folder for each. The library imports none of it.

Begin with ``tasks`` (small models on real data) and ``two_ways`` (configuration, two runs from it, checkpoints), which
the others share, and ``experiment``, the frame of every script.
"""
