"""Each fault of the dictionary looked up as if it were a user's loop: does it diverge, is it named, and at which place?

Read in this order: ``score``, ``score_on_ranks`` (the same on two ranks), ``result``.
"""
