"""Two routes on several ranks, by DDP and by hand, compared on every rank.

Read in this order: ``trial`` (what is trained), ``compare_ranks``, ``sharded_trial`` (FSDP2), ``result``.
"""
