"""A training loop that nobody here controls, watched from outside and written down as fingerprints.

In reading order: ``fingerprint`` (a tensor in a few bytes), ``record`` (what one line of a trace says), ``patch`` and
``recorder`` (how a loop is watched), ``file`` (a trace on disk), ``diff`` (two traces held against each other).
"""
