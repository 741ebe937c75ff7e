"""Two routes on several ranks, by DDP and by hand, compared on every rank, for ``experiments/distributed.py``."""
