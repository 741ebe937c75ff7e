"""The same training on several ranks: with DDP, and by hand.

In reading order: ``exchange`` (what ranks tell each other), ``step`` (one optimizer step, with DDP and by hand),
``sharded`` (what is left of it where parameters are sharded, by FSDP2), ``parity`` (two routes on every rank, and ranks
with each other), ``stress`` (the stress scenario on ranks), ``faults`` (wrong loops that need more than one),
``patched`` (the reference with them), ``together`` (all ranks go on, or none), and ``launch`` with ``blame`` (processes
that train together, and an end in bounded time whatever happens to one of them).
"""
