"""Code that only the scripts in ``experiments/`` need, in a folder for each. The library imports none of it.

Read first: ``tasks`` (small models on real data) and ``two_ways`` (configuration, two runs from it, checkpoints), which
the other folders share, and ``experiment``, the frame of every script.
"""
