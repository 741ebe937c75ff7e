"""Code that only the scripts in ``experiments/`` need, in a folder for each. The library imports none of it.

Read in this order: ``experiment`` (the frame of every script), ``result`` (the result of a study, and how it is
shown), ``tasks`` (small models on real data), ``train_two_ways`` (configuration, two runs from it, checkpoints). The
other folders share these.
"""
